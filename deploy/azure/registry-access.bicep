// The right to pull images, in the resource group of the registry. Who deploys has to be allowed to
// give rights there: Owner, User Access Administrator or Role Based Access Control Administrator.

@description('Name of the registry, in this resource group.')
param registryName string

@description('Who pulls.')
param principalId string

// AcrPull, see https://learn.microsoft.com/azure/role-based-access-control/built-in-roles/containers
var pull = '7f951dda-4ed3-4680-a7ca-43fe172d538d'

resource registry 'Microsoft.ContainerRegistry/registries@2023-07-01' existing = {
  name: registryName
}

resource right 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: registry
  name: guid(registry.id, principalId, pull)
  properties: {
    principalId: principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', pull)
  }
}

@description('Host of the registry.')
output server string = registry.properties.loginServer
