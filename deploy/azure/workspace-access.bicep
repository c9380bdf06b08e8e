// The right to query a workspace, in the resource group of the workspace: the scale rule asks it how
// many sockets are open.

@description('Name of the workspace, in this resource group.')
param workspaceName string

@description('Who queries.')
param principalId string

// Log Analytics Reader, see https://learn.microsoft.com/azure/role-based-access-control/built-in-roles/monitor
var read = '73c42c96-874c-492b-b04d-ab87d138a893'

resource workspace 'Microsoft.OperationalInsights/workspaces@2025-07-01' existing = {
  name: workspaceName
}

resource right 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: workspace
  name: guid(workspace.id, principalId, read)
  properties: {
    principalId: principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', read)
  }
}

@description('What queries name the workspace by.')
output customerId string = workspace.properties.customerId
