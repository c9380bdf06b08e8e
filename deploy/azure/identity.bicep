// The identity of the replicas. It exists, and has its rights, before the app does.

@description('What all resources are named after.')
param name string

@description('Where the resources are.')
param location string

resource identity 'Microsoft.ManagedIdentity/userAssignedIdentities@2024-11-30' = {
  name: '${name}-identity'
  location: location
}

@description('Id of the identity.')
output id string = identity.id

@description('What rights are given to.')
output principalId string = identity.properties.principalId

@description('What code in the replicas names it by.')
output clientId string = identity.properties.clientId
