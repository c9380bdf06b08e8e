// Azure Managed Redis, which the replicas share.

@description('What all resources are named after.')
param name string

@description('Where the resources are.')
param location string

@description('Size, of about as many GB as its number says; all of these may be unsharded.')
@allowed([
  'Balanced_B0'
  'Balanced_B1'
  'Balanced_B3'
  'Balanced_B5'
  'Balanced_B10'
  'Balanced_B20'
  'MemoryOptimized_M10'
  'MemoryOptimized_M20'
  'ComputeOptimized_X3'
  'ComputeOptimized_X5'
  'ComputeOptimized_X10'
  'ComputeOptimized_X20'
])
param size string

@description('The identity of the replicas, which is all that may use it: keys are switched off.')
param principalId string

@description('Id of the subnet of its private endpoint; empty for a public address.')
param endpointSubnetId string

resource cluster 'Microsoft.Cache/redisEnterprise@2025-07-01' = {
  name: '${name}-${uniqueString(resourceGroup().id)}'
  location: location
  sku: {
    name: size
  }
  properties: {
    minimumTlsVersion: '1.2'
    highAvailability: 'Enabled'
    publicNetworkAccess: empty(endpointSubnetId) ? 'Enabled' : 'Disabled'
  }
}

resource database 'Microsoft.Cache/redisEnterprise/databases@2025-07-01' = {
  parent: cluster
  name: 'default'
  properties: {
    port: 10000
    clientProtocol: 'Encrypted'
    // All keys of an agent are in one slot, so in a cluster one shard would hold everything, and the
    // others, which are paid for, nothing. Unsharded, all of the memory is ours. It is to be had up to
    // 25 GB, hence the sizes above.
    clusteringPolicy: 'NoCluster'
    // Full is an error that is told; keys that vanish would be lost invocations.
    evictionPolicy: 'NoEviction'
    accessKeysAuthentication: 'Disabled'
  }

  resource replicas 'accessPolicyAssignments' = {
    name: 'replicas'
    properties: {
      accessPolicyName: 'default'
      user: {
        objectId: principalId
      }
    }
  }
}

module endpoint 'private-endpoint.bicep' = if (!empty(endpointSubnetId)) {
  name: '${name}-redis-endpoint'
  params: {
    name: '${name}-redis'
    location: location
    subnetId: endpointSubnetId
    targetId: cluster.id
    groupId: 'redisEnterprise'
    zoneName: 'privatelink.redis.azure.net'
  }
  // One change of a cluster at a time.
  dependsOn: [
    database::replicas
  ]
}

@description('Where the replicas find it; it holds no secret.')
output url string = 'rediss://${cluster.properties.hostName}:${database.properties.port}'
