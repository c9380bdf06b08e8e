// API Management: the framed and the raw socket as WebSocket APIs, the rest as an HTTP API.

@description('What all resources are named after. Several agents in one API Management differ by it.')
param name string

@description('Where the resources are.')
param location string

@description('Name of an existing API Management in this resource group; empty for a new one.')
param existingName string

@description('Tier of a new one.')
param tier string

@description('Units of a new one.')
param units int

@description('Id of the subnet by which a new one reaches the replicas; empty where they have a public address.')
param subnetId string

@description('Whom API Management writes to.')
param publisherEmail string

@description('Path under which the agent is; empty for none. Several agents in one API Management differ by it.')
param path string

@description('Host that the replicas answer at.')
param backendHost string

@description('URL of the OpenID configuration of the issuer of tokens.')
param openIdConfigUrl string

@description('Audience that tokens have to be made out to.')
param audience string

@description('Claims that tokens must have: a list of values for each, of which one has to be there.')
param requiredClaims object

@description('Query parameter in which browsers send their token on a handshake; empty for none.')
param queryParameter string

@description('Origins of pages that may call, comma-separated.')
param allowedOrigins string

@description('Whether a POST with an Idempotency-Key is repeated after a 503, for which bodies are copied: 2 MiB at most in the v2 tiers.')
param repeatPosts bool

@description('Handshakes of one user a minute.')
param handshakesPerUser int

@description('HTTP requests of one user a minute.')
param callsPerUser int

@description('Requests and handshakes of one address a minute.')
param callsPerAddress int

@description('Key by which the gateway shows itself to the replicas.')
@secure()
param gatewayKey string

@description('Name of an Application Insights in this resource group, or empty.')
param insightsName string

@description('Connection string of an Application Insights elsewhere.')
@secure()
param connectionString string

var serviceName = empty(existingName) ? '${name}-${uniqueString(resourceGroup().id)}' : existingName
var prefix = empty(path) ? '' : '${path}/'

// What the policies call {{agentws-…}}.
var texts = {
  'openid-config': openIdConfigUrl
  audience: audience
  'handshakes-per-user': string(handshakesPerUser)
  'calls-per-user': string(callsPerUser)
  'calls-per-address': string(callsPerAddress)
}

// No operation is '/', which would be forwarded with a slash at the end. The documents of the sockets
// are here, too, as API Management takes all below /invocations_ws for the sockets.
var operations = [
  {
    name: 'invoke'
    method: 'POST'
    urlTemplate: '/invocations'
    parameters: []
  }
  {
    name: 'list'
    method: 'GET'
    urlTemplate: '/invocations'
    parameters: []
  }
  {
    name: 'get'
    method: 'GET'
    urlTemplate: '/invocations/{id}'
    parameters: ['id']
  }
  {
    name: 'say'
    method: 'POST'
    urlTemplate: '/invocations/{id}/inputs'
    parameters: ['id']
  }
  {
    name: 'cancel'
    method: 'POST'
    urlTemplate: '/invocations/{id}/cancel'
    parameters: ['id']
  }
  {
    name: 'openapi'
    method: 'GET'
    urlTemplate: '/invocations/docs/openapi.json'
    parameters: []
  }
  {
    name: 'asyncapi'
    method: 'GET'
    urlTemplate: '/invocations/docs/asyncapi.json'
    parameters: []
  }
  {
    name: 'readiness'
    method: 'GET'
    urlTemplate: '/readiness'
    parameters: []
  }
]

var sockets = [
  {
    name: 'framed'
    path: 'invocations_ws/ws'
  }
  {
    name: 'raw'
    path: 'invocations_ws'
  }
]

// What parameters put into the policies.
var claims = join(
  map(
    items(requiredClaims),
    claim => '<claim name="${claim.key}" match="any"${claim.key == 'scp' ? ' separator=" "' : ''}>${join(map(claim.value, value => '<value>${value}</value>'), '')}</claim>'
  ),
  ''
)
var origins = join(map(split(allowedOrigins, ','), origin => '<origin>${trim(origin)}</origin>'), '')
var inHeader = 'header-name="Authorization" require-scheme="Bearer"'
var inHeaderOrQuery = 'token-value="@(context.Request.Headers.GetValueOrDefault(&quot;Authorization&quot;, &quot;&quot;).StartsWith(&quot;Bearer &quot;) ? context.Request.Headers.GetValueOrDefault(&quot;Authorization&quot;, &quot;&quot;).Substring(7) : context.Request.Url.Query.GetValueOrDefault(&quot;${queryParameter}&quot;, &quot;&quot;))"'
// The token goes no further, into no log of the replicas.
var withoutQuery = '<set-query-parameter name="${queryParameter}" exists-action="delete" />'
// What pages may read. Their origin has then been checked: the replicas see none, and answer without
// headers of their own, of which browsers would take none twice.
var pages = '<cors terminate-unmatched-request="true"><allowed-origins>${origins}</allowed-origins><allowed-methods preflight-result-max-age="600"><method>GET</method><method>POST</method></allowed-methods><allowed-headers><header>*</header></allowed-headers><expose-headers><header>Location</header><header>Preference-Applied</header><header>Retry-After</header><header>x-agent-invocation-id</header><header>x-agent-session-id</header><header>x-platform-error-source</header><header>x-request-id</header></expose-headers></cors><set-header name="Origin" exists-action="delete" />'

// Values and counters are of one agent.
var ourValue = '{{${name}-'
var ourCounter = '&quot;${name}-'
var claimed = empty(requiredClaims) ? '' : '<required-claims>${claims}</required-claims>'
var handshakePolicy = replace(
  replace(
    replace(
      replace(replace(loadTextContent('policies/handshake.xml'), '{{agentws-', ourValue), '&quot;agentws-', ourCounter),
      '<!-- [claims] -->',
      claimed
    ),
    '<!-- [query] -->',
    empty(queryParameter) ? '' : withoutQuery
  ),
  inHeader,
  empty(queryParameter) ? inHeader : inHeaderOrQuery
)
var httpPolicy = replace(
  replace(
    replace(replace(loadTextContent('policies/http.xml'), '{{agentws-', ourValue), '&quot;agentws-', ourCounter),
    '<!-- [claims] -->',
    claimed
  ),
  '<!-- [pages] -->',
  empty(allowedOrigins) ? '' : pages
)
var readinessPolicy = replace(
  replace(loadTextContent('policies/readiness.xml'), '{{agentws-', ourValue),
  '&quot;agentws-',
  ourCounter
)

// Operations that have a policy of their own.
var readinessOwn = {
  operation: 'readiness'
  text: readinessPolicy
}
var invokeOwn = {
  operation: 'invoke'
  text: loadTextContent('policies/invoke.xml')
}
var policies = repeatPosts ? [readinessOwn, invokeOwn] : [readinessOwn]

// Of no request or answer the body: that would hold back events. Of no URL the query: it may be a token.
var unread = {
  headers: []
  body: {
    bytes: 0
  }
  dataMasking: {
    queryParams: [
      {
        value: '*'
        mode: 'Hide'
      }
    ]
  }
}
var logging = {
  alwaysLog: 'allErrors'
  httpCorrelationProtocol: 'W3C'
  logClientIp: false
  verbosity: 'error'
  sampling: {
    samplingType: 'fixed'
    percentage: 100
  }
  frontend: {
    request: unread
    response: unread
  }
  backend: {
    request: unread
    response: unread
  }
}

resource insights 'Microsoft.Insights/components@2020-02-02' existing = if (!empty(insightsName)) {
  name: insightsName
}

resource created 'Microsoft.ApiManagement/service@2024-05-01' = if (empty(existingName)) {
  name: serviceName
  location: location
  sku: {
    name: tier
    capacity: units
  }
  properties: {
    publisherEmail: publisherEmail
    publisherName: name
    virtualNetworkType: empty(subnetId) ? 'None' : 'External'
    virtualNetworkConfiguration: empty(subnetId)
      ? null
      : {
          subnetResourceId: subnetId
        }
  }
}

resource service 'Microsoft.ApiManagement/service@2024-05-01' existing = {
  name: serviceName
}

resource values 'Microsoft.ApiManagement/service/namedValues@2024-05-01' = [
  for text in items(texts): {
    parent: service
    name: '${name}-${text.key}'
    properties: {
      displayName: '${name}-${text.key}'
      value: text.value
    }
    dependsOn: [
      created
    ]
  }
]

resource key 'Microsoft.ApiManagement/service/namedValues@2024-05-01' = {
  parent: service
  name: '${name}-gateway-key'
  properties: {
    displayName: '${name}-gateway-key'
    secret: true
    value: gatewayKey
  }
  dependsOn: [
    created
  ]
}

resource logger 'Microsoft.ApiManagement/service/loggers@2024-05-01' = {
  parent: service
  name: '${name}-insights'
  properties: {
    loggerType: 'applicationInsights'
    credentials: {
      connectionString: empty(insightsName) ? connectionString : insights!.properties.ConnectionString
    }
  }
  dependsOn: [
    created
  ]
}

@batchSize(1)
resource socketApis 'Microsoft.ApiManagement/service/apis@2024-05-01' = [
  for socket in sockets: {
    parent: service
    name: '${name}-${socket.name}-socket'
    properties: {
      displayName: '${name}, ${socket.name} socket'
      type: 'websocket'
      apiType: 'websocket'
      path: '${prefix}${socket.path}'
      protocols: ['wss']
      serviceUrl: 'wss://${backendHost}/${socket.path}'
      subscriptionRequired: false
    }
    dependsOn: [
      created
    ]
  }
]

// API Management makes this operation by itself; it is the only one of a WebSocket API.
resource handshakes 'Microsoft.ApiManagement/service/apis/operations@2024-05-01' existing = [
  for (socket, index) in sockets: {
    parent: socketApis[index]
    name: 'onHandshake'
  }
]

resource handshakePolicies 'Microsoft.ApiManagement/service/apis/operations/policies@2024-05-01' = [
  for (socket, index) in sockets: {
    parent: handshakes[index]
    name: 'policy'
    properties: {
      format: 'xml'
      value: handshakePolicy
    }
    dependsOn: [
      socketApis
      values
      key
    ]
  }
]

resource socketLogging 'Microsoft.ApiManagement/service/apis/diagnostics@2024-05-01' = [
  for (socket, index) in sockets: {
    parent: socketApis[index]
    name: 'applicationinsights'
    properties: union(logging, {
      loggerId: logger.id
    })
  }
]

resource http 'Microsoft.ApiManagement/service/apis@2024-05-01' = {
  parent: service
  name: '${name}-http'
  properties: {
    displayName: '${name}, HTTP and Server-Sent Events'
    type: 'http'
    apiType: 'http'
    path: path
    protocols: ['https']
    serviceUrl: 'https://${backendHost}'
    subscriptionRequired: false
  }
  dependsOn: [
    created
    socketApis
  ]

  resource policy 'policies' = {
    name: 'policy'
    properties: {
      format: 'xml'
      value: httpPolicy
    }
    dependsOn: [
      values
      key
    ]
  }

  resource httpLogging 'diagnostics' = {
    name: 'applicationinsights'
    properties: union(logging, {
      loggerId: logger.id
    })
  }
}

@batchSize(1)
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

resource ownOperations 'Microsoft.ApiManagement/service/apis/operations@2024-05-01' existing = [
  for policy in policies: {
    parent: http
    name: policy.operation
  }
]

resource ownPolicies 'Microsoft.ApiManagement/service/apis/operations/policies@2024-05-01' = [
  for (policy, index) in policies: {
    parent: ownOperations[index]
    name: 'policy'
    properties: {
      format: 'xml'
      value: policy.text
    }
    dependsOn: [
      httpOperations
      values
    ]
  }
]

@description('Where clients find the agent: host, and path where there is one.')
output address string = '${split(service.properties.gatewayUrl, '/')[2]}${empty(path) ? '' : '/${path}'}'
