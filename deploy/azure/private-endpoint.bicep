// A private endpoint with the DNS zone that makes its network find it.

@description('What the endpoint is named after.')
param name string

@description('Where the resources are.')
param location string

@description('Id of the subnet that the endpoint is in.')
param subnetId string

@description('Id of the resource that it leads to.')
param targetId string

@description('Which part of that resource, as Private Link names it.')
param groupId string

@description('Name of the DNS zone, as Private Link wants it for that kind of resource.')
param zoneName string

resource endpoint 'Microsoft.Network/privateEndpoints@2025-05-01' = {
  name: '${name}-endpoint'
  location: location
  properties: {
    subnet: {
      id: subnetId
    }
    privateLinkServiceConnections: [
      {
        name: name
        properties: {
          privateLinkServiceId: targetId
          groupIds: [groupId]
        }
      }
    ]
  }

  resource zones 'privateDnsZoneGroups' = {
    name: 'default'
    properties: {
      privateDnsZoneConfigs: [
        {
          name: 'zone'
          properties: {
            privateDnsZoneId: zone.id
          }
        }
      ]
    }
    dependsOn: [
      zone::link
    ]
  }
}

resource zone 'Microsoft.Network/privateDnsZones@2024-06-01' = {
  name: zoneName
  location: 'global'

  resource link 'virtualNetworkLinks' = {
    name: name
    location: 'global'
    properties: {
      registrationEnabled: false
      virtualNetwork: {
        id: join(take(split(subnetId, '/'), 9), '/')
      }
    }
  }
}
