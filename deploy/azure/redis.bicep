// Azure Managed Redis, which the replicas share.

@description('What all resources are named after.')
param name string

@description('Where the resources are.')
param location string

@description('Size. Streams are held for a while: see the sizing in docs/operations.md.')
param size string = 'Balanced_B1'

resource cluster 'Microsoft.Cache/redisEnterprise@2025-04-01' = {
  name: '${name}-${uniqueString(resourceGroup().id)}'
  location: location
  sku: {
    name: size
  }
  properties: {
    minimumTlsVersion: '1.2'
    highAvailability: 'Enabled'
  }
}

resource database 'Microsoft.Cache/redisEnterprise/databases@2025-04-01' = {
  parent: cluster
  name: 'default'
  properties: {
    port: 10000
    clientProtocol: 'Encrypted'
    // One address that speaks for all shards: agentws is no client of Redis Cluster.
    clusteringPolicy: 'EnterpriseCluster'
    // Full is an error that is told; keys that vanish would be lost invocations.
    evictionPolicy: 'NoEviction'
    accessKeysAuthentication: 'Enabled'
  }
}

@description('Name of the cluster; its database is called default.')
output name string = cluster.name

@description('The database.')
output databaseId string = database.id
