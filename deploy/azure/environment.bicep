// The environment of the Container App: its network, its way in, and where log lines go.

@description('What all resources are named after.')
param name string

@description('Where the resources are.')
param location string

@description('Id of the workspace that log lines go to.')
param workspaceId string

@description('Minutes of silence after which the way in cuts a connection. More than 4 is premium ingress, on two nodes of its own.')
@minValue(4)
@maxValue(30)
param ingressIdleMinutes int

@description('Id of the subnet that the replicas are in, of their own and delegated to Microsoft.App/environments; empty for none.')
param environmentSubnetId string

@description('Id of the subnet of its private endpoint; empty for a public address.')
param endpointSubnetId string

var consumption = {
  name: 'Consumption'
  workloadProfileType: 'Consumption'
}

// At least two nodes: https://learn.microsoft.com/azure/container-apps/premium-ingress
var ingressNodes = {
  name: 'ingress'
  workloadProfileType: 'D4'
  minimumCount: 2
  maximumCount: 3
}

resource workspace 'Microsoft.OperationalInsights/workspaces@2025-07-01' existing = {
  name: last(split(workspaceId, '/'))
  scope: resourceGroup(split(workspaceId, '/')[2], split(workspaceId, '/')[4])
}

resource environment 'Microsoft.App/managedEnvironments@2026-07-01' = {
  name: '${name}-environment'
  location: location
  properties: {
    workloadProfiles: ingressIdleMinutes > 4 ? [consumption, ingressNodes] : [consumption]
    ingressConfiguration: ingressIdleMinutes > 4
      ? {
          workloadProfileName: ingressNodes.name
          requestIdleTimeout: ingressIdleMinutes
          terminationGracePeriodSeconds: 500
        }
      : null
    vnetConfiguration: empty(environmentSubnetId)
      ? null
      : {
          internal: false
          infrastructureSubnetId: environmentSubnetId
        }
    publicNetworkAccess: empty(endpointSubnetId) ? 'Enabled' : 'Disabled'
    appLogsConfiguration: {
      destination: 'log-analytics'
      logAnalyticsConfiguration: {
        customerId: workspace.properties.customerId
        sharedKey: workspace.listKeys().primarySharedKey
      }
    }
  }
}

module endpoint 'private-endpoint.bicep' = if (!empty(endpointSubnetId)) {
  name: '${name}-environment-endpoint'
  params: {
    name: '${name}-environment'
    location: location
    subnetId: endpointSubnetId
    targetId: environment.id
    groupId: 'managedEnvironments'
    zoneName: 'privatelink.${location}.azurecontainerapps.io'
  }
}

@description('Id of the environment.')
output id string = environment.id
