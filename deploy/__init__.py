"""What is deployed, and the scripts that go with it."""
