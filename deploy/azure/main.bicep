// An agent in Azure: Container App, Azure Managed Redis, Application Insights, API Management.
// What you have already is named by a parameter and used instead of a new one. See README.md.
targetScope = 'resourceGroup'

@description('What all resources are named after.')
@minLength(3)
@maxLength(20)
param name string = 'agentws'

@description('Where the resources are.')
param location string = resourceGroup().location

@description('The image of the agent, made by FROM agentws.')
param image string

@description('Host of the container registry that the image is in; empty for a public one.')
param registryServer string = ''

@description('Fewest replicas. Two, so that one can be restarted while the other serves.')
@minValue(1)
param minReplicas int = 2

@description('Most replicas.')
@maxValue(300)
param maxReplicas int = 10

@description('Connections and requests at once for which one replica is meant.')
@minValue(1)
param connectionsPerReplica int = 2000

@description('Id of an existing Container Apps environment; empty for a new one.')
param existingEnvironmentId string = ''

@description('URL of an existing Redis, rediss://:KEY@HOST:PORT; empty for a new Azure Managed Redis.')
@secure()
param existingStoreUrl string = ''

@description('Connection string of an existing Application Insights; empty for a new one.')
@secure()
param existingConnectionString string = ''

@description('Name of an existing API Management in this resource group; empty for a new one.')
param existingGatewayName string = ''

@description('Tier of a new API Management; the Consumption tier knows no WebSocket APIs.')
@allowed(['Developer', 'Basic', 'Standard', 'Premium', 'BasicV2', 'StandardV2'])
param gatewayTier string = 'StandardV2'

@description('Whom API Management writes to.')
param publisherEmail string

@description('URL of the OpenID configuration of the issuer of tokens.')
param openIdConfigUrl string

@description('Audience that tokens have to be made out to.')
param audience string

@description('Origins of pages that may open sockets, comma-separated, such as https://www.example.com.')
param allowedOrigins string = ''

@description('Key by which the gateway shows itself to the replicas; they know no other caller.')
@secure()
@minLength(32)
param gatewayKey string

module monitoring 'monitoring.bicep' = {
  name: '${name}-monitoring'
  params: {
    name: name
    location: location
    createInsights: empty(existingConnectionString)
  }
}

module redis 'redis.bicep' = if (empty(existingStoreUrl)) {
  name: '${name}-redis'
  params: {
    name: name
    location: location
  }
}

module app 'container-app.bicep' = {
  name: '${name}-app'
  params: {
    name: name
    location: location
    image: image
    registryServer: registryServer
    minReplicas: minReplicas
    maxReplicas: maxReplicas
    connectionsPerReplica: connectionsPerReplica
    existingEnvironmentId: existingEnvironmentId
    workspaceName: monitoring.outputs.workspaceName
    insightsName: monitoring.outputs.insightsName
    connectionString: existingConnectionString
    redisName: empty(existingStoreUrl) ? redis!.outputs.name : ''
    storeUrl: existingStoreUrl
    allowedOrigins: allowedOrigins
    gatewayKey: gatewayKey
  }
}

module gateway 'gateway.bicep' = {
  name: '${name}-gateway'
  params: {
    name: name
    location: location
    existingName: existingGatewayName
    tier: gatewayTier
    publisherEmail: publisherEmail
    backendHost: app.outputs.host
    openIdConfigUrl: openIdConfigUrl
    audience: audience
    gatewayKey: gatewayKey
  }
}

@description('Where the framed socket is.')
output socketUrl string = 'wss://${gateway.outputs.host}/invocations_ws/ws'

@description('Where invocations are posted to.')
output httpUrl string = 'https://${gateway.outputs.host}/invocations'

@description('The identity of the replicas, to be given rights.')
output principalId string = app.outputs.principalId
