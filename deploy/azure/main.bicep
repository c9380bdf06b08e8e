// An agent in Azure: Container App, Azure Managed Redis, Application Insights, API Management.
// What you have already is named by a parameter and used instead of a new one. See README.md.
targetScope = 'resourceGroup'

@description('What all resources are named after, and the agent in what it tells: small letters, digits and hyphens.')
@minLength(3)
@maxLength(20)
param name string = 'agentws'

@description('Where the resources are.')
param location string = resourceGroup().location

// --- the agent

@description('The image of the agent, made by FROM agentws.')
param image string

@description('Id of the Azure Container Registry that the image is in; empty for a public one.')
param registryId string = ''

@description('Cores of a replica. One process uses one.')
@allowed(['0.5', '0.75', '1.0', '1.25', '1.5', '1.75', '2.0'])
param cores string = '1.0'

@description('Memory of a replica; the platform has 2 Gi for each core.')
param memory string = '2Gi'

@description('Fewest replicas. Two, so that one can be restarted while the other serves.')
@minValue(1)
param minReplicas int = 2

@description('Most replicas.')
@maxValue(1000)
param maxReplicas int = 10

@description('Open sockets for which one replica is meant.')
@minValue(1)
param socketsPerReplica int = 1000

@description('Seconds that running invocations have when a replica goes: to the longest that must not be cut.')
@minValue(1)
@maxValue(580)
param shutdownGrace int = 25

@description('Seconds that a socket lives: then its client comes back, is checked, and is spread anew.')
@minValue(60)
param maxConnectionAge int = 3600

// --- what is there already

@description('Id of an existing Log Analytics workspace; empty for a new one. With an existing environment: the one that its lines go to, or there are no alerts.')
param existingWorkspaceId string = ''

@description('Id of an existing Container Apps environment; empty for a new one.')
param existingEnvironmentId string = ''

@description('URL of an existing Redis, rediss://HOST:PORT, with :KEY@ before the host where it has one; empty for a new Azure Managed Redis.')
@secure()
param existingStoreUrl string = ''

@description('How to authenticate to an existing Redis.')
@allowed(['entra', 'password'])
param existingStoreAuth string = 'password'

@description('Connection string of an existing Application Insights; empty for a new one.')
@secure()
param existingConnectionString string = ''

@description('Name of an existing API Management in this resource group; empty for a new one.')
param existingGatewayName string = ''

@description('Id of an existing action group for alerts; empty for a new one.')
param existingActionGroupId string = ''

// --- what is new

@description('Size of a new Azure Managed Redis.')
param storeSize string = 'Balanced_B1'

@description('Tier of a new API Management; the Consumption tier knows no WebSocket APIs.')
@allowed(['Developer', 'Basic', 'Standard', 'Premium', 'BasicV2', 'StandardV2', 'PremiumV2'])
param gatewayTier string = 'StandardV2'

@description('Units of a new API Management: each has its limit of open sockets.')
@minValue(1)
param gatewayUnits int = 1

@description('Whom a new API Management writes to.')
param publisherEmail string

@description('Whom a new action group writes to.')
param alertEmail string = publisherEmail

@description('Minutes of silence after which a new environment cuts a connection. More than 4 takes premium ingress, on two nodes of its own.')
@minValue(4)
@maxValue(30)
param ingressIdleMinutes int = 4

// --- network: all three, in one virtual network, or none

@description('Id of the subnet of the replicas, of their own and delegated to Microsoft.App/environments.')
param environmentSubnetId string = ''

@description('Id of the subnet of the private endpoints of Redis and of the environment, which then have no public address.')
param endpointSubnetId string = ''

@description('Id of the subnet by which a new API Management reaches them, delegated as its tier wants.')
param gatewaySubnetId string = ''

// --- who calls

@description('Path under which the gateway has the agent; empty for none.')
param path string = ''

@description('URL of the OpenID configuration of the issuer of tokens.')
param openIdConfigUrl string

@description('Audience that tokens have to be made out to.')
param audience string

@description('Claims that tokens must have, such as {"roles": ["Agent.Invoke"]}: one of the values of each.')
param requiredClaims object = {}

@description('Query parameter in which browsers send their token on a handshake, such as access_token; empty for none.')
param queryParameter string = ''

@description('Origins of pages that may call, comma-separated, such as https://www.example.com.')
param allowedOrigins string = ''

@description('Whether the gateway repeats a POST with an Idempotency-Key after a 503. For that it copies bodies, 2 MiB at most in the v2 tiers: false, where larger ones come.')
param repeatPosts bool = true

@description('Handshakes of one user a minute.')
@minValue(1)
param handshakesPerUser int = 60

@description('HTTP requests of one user a minute.')
@minValue(1)
param callsPerUser int = 300

@description('Requests and handshakes of one address a minute. Many users may share one.')
@minValue(1)
param callsPerAddress int = 3000

@description('Key by which the gateway shows itself to the replicas; they know no other caller.')
@secure()
@minLength(32)
param gatewayKey string

@description('A second key that the replicas know, so that the first can be changed while they serve.')
@secure()
param otherGatewayKey string = ''

// Their subscriptions and resource groups.
var registryParts = split(empty(registryId) ? resourceGroup().id : registryId, '/')
var workspaceParts = split(empty(existingWorkspaceId) ? resourceGroup().id : existingWorkspaceId, '/')

// Whether the workspace is known that metrics go to.
var hasMetrics = empty(existingConnectionString) || !empty(existingWorkspaceId)

module identity 'identity.bicep' = {
  name: '${name}-identity'
  params: {
    name: name
    location: location
  }
}

module registry 'registry-access.bicep' = if (!empty(registryId)) {
  name: '${name}-registry'
  scope: resourceGroup(registryParts[2], registryParts[4])
  params: {
    registryName: last(split(registryId, '/'))
    principalId: identity.outputs.principalId
  }
}

module monitoring 'monitoring.bicep' = {
  name: '${name}-monitoring'
  params: {
    name: name
    location: location
    existingWorkspaceId: existingWorkspaceId
    createInsights: empty(existingConnectionString)
    hasLines: empty(existingEnvironmentId) || !empty(existingWorkspaceId)
    existingActionGroupId: existingActionGroupId
    alertEmail: alertEmail
  }
}

module metrics 'workspace-access.bicep' = if (hasMetrics) {
  name: '${name}-metrics'
  scope: resourceGroup(workspaceParts[2], workspaceParts[4])
  params: {
    workspaceName: last(split(monitoring.outputs.workspaceId, '/'))
    principalId: identity.outputs.principalId
  }
}

module redis 'redis.bicep' = if (empty(existingStoreUrl)) {
  name: '${name}-redis'
  params: {
    name: name
    location: location
    size: storeSize
    principalId: identity.outputs.principalId
    endpointSubnetId: endpointSubnetId
  }
}

module environment 'environment.bicep' = if (empty(existingEnvironmentId)) {
  name: '${name}-environment'
  params: {
    name: name
    location: location
    workspaceId: monitoring.outputs.workspaceId
    ingressIdleMinutes: ingressIdleMinutes
    environmentSubnetId: environmentSubnetId
    endpointSubnetId: endpointSubnetId
  }
}

module app 'container-app.bicep' = {
  name: '${name}-app'
  params: {
    name: name
    location: location
    image: image
    registryServer: empty(registryId) ? '' : registry!.outputs.server
    identityId: identity.outputs.id
    clientId: identity.outputs.clientId
    environmentId: empty(existingEnvironmentId) ? environment!.outputs.id : existingEnvironmentId
    cores: cores
    memory: memory
    minReplicas: minReplicas
    maxReplicas: maxReplicas
    socketsPerReplica: socketsPerReplica
    metricsWorkspace: hasMetrics ? metrics!.outputs.customerId : ''
    insightsName: monitoring.outputs.insightsName
    connectionString: existingConnectionString
    storeUrl: empty(existingStoreUrl) ? redis!.outputs.url : existingStoreUrl
    storeAuth: empty(existingStoreUrl) ? 'entra' : existingStoreAuth
    shutdownGrace: shutdownGrace
    maxConnectionAge: maxConnectionAge
    allowedOrigins: allowedOrigins
    gatewayKeys: empty(otherGatewayKey) ? gatewayKey : '${gatewayKey},${otherGatewayKey}'
  }
}

module gateway 'gateway.bicep' = {
  name: '${name}-gateway'
  params: {
    name: name
    location: location
    existingName: existingGatewayName
    tier: gatewayTier
    units: gatewayUnits
    subnetId: gatewaySubnetId
    publisherEmail: publisherEmail
    path: path
    backendHost: app.outputs.host
    openIdConfigUrl: openIdConfigUrl
    audience: audience
    requiredClaims: requiredClaims
    queryParameter: queryParameter
    allowedOrigins: allowedOrigins
    repeatPosts: repeatPosts
    handshakesPerUser: handshakesPerUser
    callsPerUser: callsPerUser
    callsPerAddress: callsPerAddress
    gatewayKey: gatewayKey
    insightsName: monitoring.outputs.insightsName
    connectionString: existingConnectionString
  }
}

@description('Where the framed socket is.')
output socketUrl string = 'wss://${gateway.outputs.address}/invocations_ws/ws'

@description('Where invocations are posted to.')
output httpUrl string = 'https://${gateway.outputs.address}/invocations'

@description('The identity of the replicas, to be given rights to what the agent calls.')
output principalId string = identity.outputs.principalId
