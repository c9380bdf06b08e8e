// API Management: the framed socket as a WebSocket API, invocations as an HTTP API.

@description('What all resources are named after.')
param name string

@description('Where the resources are.')
param location string

@description('Name of an existing API Management in this resource group; empty for a new one.')
param existingName string

@description('Tier of a new one.')
param tier string

@description('Whom API Management writes to.')
param publisherEmail string

@description('Host that the replicas answer at.')
param backendHost string

@description('URL of the OpenID configuration of the issuer of tokens.')
param openIdConfigUrl string

@description('Audience that tokens have to be made out to.')
param audience string

@description('Key by which the gateway shows itself to the replicas.')
@secure()
param gatewayKey string

var serviceName = empty(existingName) ? '${name}-${uniqueString(resourceGroup().id)}' : existingName

// What the policies call {{agentws-…}}.
var texts = {
  'agentws-openid-config': openIdConfigUrl
  'agentws-audience': audience
}

var operations = [
  {
    name: 'invoke'
    method: 'POST'
    urlTemplate: '/'
    parameters: []
  }
  {
    name: 'get'
    method: 'GET'
    urlTemplate: '/{id}'
    parameters: ['id']
  }
  {
    name: 'cancel'
    method: 'POST'
    urlTemplate: '/{id}/cancel'
    parameters: ['id']
  }
]

resource created 'Microsoft.ApiManagement/service@2024-05-01' = if (empty(existingName)) {
  name: serviceName
  location: location
  sku: {
    name: tier
    capacity: 1
  }
  properties: {
    publisherEmail: publisherEmail
    publisherName: name
  }
}

resource service 'Microsoft.ApiManagement/service@2024-05-01' existing = {
  name: serviceName
}

resource values 'Microsoft.ApiManagement/service/namedValues@2024-05-01' = [
  for text in items(texts): {
    parent: service
    name: text.key
    properties: {
      displayName: text.key
      value: text.value
    }
    dependsOn: [
      created
    ]
  }
]

resource key 'Microsoft.ApiManagement/service/namedValues@2024-05-01' = {
  parent: service
  name: 'agentws-gateway-key'
  properties: {
    displayName: 'agentws-gateway-key'
    secret: true
    value: gatewayKey
  }
  dependsOn: [
    created
  ]
}

resource socket 'Microsoft.ApiManagement/service/apis@2024-05-01' = {
  parent: service
  name: 'agentws-socket'
  properties: {
    displayName: 'agentws, framed socket'
    type: 'websocket'
    path: 'invocations_ws/ws'
    protocols: ['wss']
    serviceUrl: 'wss://${backendHost}/invocations_ws/ws'
    subscriptionRequired: false
  }
  dependsOn: [
    created
  ]

  // API Management makes this operation by itself; it is the only one of a WebSocket API.
  resource handshake 'operations' existing = {
    name: 'onHandshake'

    resource policy 'policies' = {
      name: 'policy'
      properties: {
        format: 'xml'
        value: loadTextContent('policies/handshake.xml')
      }
      dependsOn: [
        values
        key
      ]
    }
  }
}

resource http 'Microsoft.ApiManagement/service/apis@2024-05-01' = {
  parent: service
  name: 'agentws-http'
  properties: {
    displayName: 'agentws, HTTP and Server-Sent Events'
    type: 'http'
    path: 'invocations'
    protocols: ['https']
    serviceUrl: 'https://${backendHost}/invocations'
    subscriptionRequired: false
  }
  dependsOn: [
    created
  ]

  resource policy 'policies' = {
    name: 'policy'
    properties: {
      format: 'xml'
      value: loadTextContent('policies/http.xml')
    }
    dependsOn: [
      values
      key
    ]
  }
}

resource httpOperations 'Microsoft.ApiManagement/service/apis/operations@2024-05-01' = [
  for operation in operations: {
    parent: http
    name: operation.name
    properties: {
      displayName: operation.name
      method: operation.method
      urlTemplate: operation.urlTemplate
      templateParameters: [
        for parameter in operation.parameters: {
          name: parameter
          type: 'string'
          required: true
        }
      ]
    }
  }
]

@description('Host that clients talk to.')
output host string = split(service.properties.gatewayUrl, '/')[2]
