// The replicas: a Container App with its secrets, probes and scale rules.

@description('What all resources are named after, and the agent in what it tells.')
param name string

@description('Where the resources are.')
param location string

@description('The image of the agent.')
param image string

@description('Host of the registry that the identity pulls from; empty for a public one.')
param registryServer string

@description('Id of the identity of the replicas.')
param identityId string

@description('What code in the replicas names that identity by.')
param clientId string

@description('Id of the environment.')
param environmentId string

@description('Cores of a replica. One process uses one of them, and half of another for telemetry and the like.')
param cores string

@description('Memory of a replica, in the ratio to cores that the platform has.')
param memory string

@description('Fewest replicas.')
param minReplicas int

@description('Most replicas.')
param maxReplicas int

@description('Open sockets for which one replica is meant.')
param socketsPerReplica int

@description('What queries name the workspace by that metrics go to; empty for no scale rule of sockets.')
param metricsWorkspace string

@description('Name of an Application Insights in this resource group, or empty.')
param insightsName string

@description('Connection string of an Application Insights elsewhere.')
@secure()
param connectionString string

@description('URL of the Redis; with a password, where it has one.')
@secure()
param storeUrl string

@description('How the replicas authenticate to Redis.')
@allowed(['entra', 'password'])
param storeAuth string

@description('Seconds that running invocations have after SIGTERM.')
@minValue(1)
@maxValue(580)
param shutdownGrace int

@description('Seconds that a socket lives.')
param maxConnectionAge int

@description('Origins of pages that may open sockets, comma-separated.')
param allowedOrigins string

@description('Keys by which the gateway may show itself.')
@secure()
param gatewayKeys string

var port = 8088

// What the daemon needs after `shutdownGrace`, and some: the platform then kills.
var closing = 20

resource insights 'Microsoft.Insights/components@2020-02-02' existing = if (!empty(insightsName)) {
  name: insightsName
}

var telemetry = empty(insightsName) ? connectionString : insights!.properties.ConnectionString

// The sum of what each replica told last. `websocket.active_connections` is told once a minute, and
// takes some more to arrive.
var openSockets = '''
  AppMetrics
  | where TimeGenerated > ago(10m) and AppRoleName == "APP" and Name == "websocket.active_connections"
  | summarize arg_max(TimeGenerated, Sum) by AppRoleInstance
  | where TimeGenerated > ago(5m)
  | summarize Sockets = sum(Sum)
'''

// The scalers are KEDA's. The rule of the platform for HTTP counts the requests of the last 15 seconds,
// and divides by 15: a socket is one request, once. So it would see none of those that are open.
var processorRule = {
  name: 'processor'
  custom: {
    type: 'cpu'
    metadata: {
      type: 'Utilization'
      value: '70'
    }
  }
}
var socketsRule = {
  name: 'sockets'
  custom: {
    type: 'azure-log-analytics'
    identity: identityId
    metadata: {
      workspaceId: metricsWorkspace
      tenantId: tenant().tenantId
      query: replace(openSockets, 'APP', name)
      threshold: string(socketsPerReplica)
    }
  }
}

resource app 'Microsoft.App/containerApps@2026-07-01' = {
  name: name
  location: location
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: {
      '${identityId}': {}
    }
  }
  properties: {
    managedEnvironmentId: environmentId
    configuration: {
      // A new revision is ready before the old one gets SIGTERM.
      activeRevisionsMode: 'Single'
      ingress: {
        external: true
        targetPort: port
        transport: 'http'
        allowInsecure: false
        // With Redis, any replica serves any client.
        stickySessions: {
          affinity: 'none'
        }
      }
      registries: empty(registryServer)
        ? []
        : [
            {
              server: registryServer
              identity: identityId
            }
          ]
      secrets: [
        {
          name: 'store-url'
          value: storeUrl
        }
        {
          name: 'connection-string'
          value: telemetry
        }
        {
          name: 'gateway-keys'
          value: gatewayKeys
        }
      ]
    }
    template: {
      terminationGracePeriodSeconds: shutdownGrace + closing
      containers: [
        {
          name: 'agentws'
          image: image
          resources: {
            cpu: json(cores)
            memory: memory
          }
          env: [
            {
              name: 'AGENTWS_SERVER__PORT'
              value: string(port)
            }
            {
              name: 'AGENTWS_SERVER__SHUTDOWN_GRACE'
              value: string(shutdownGrace)
            }
            // Also what Application Insights calls it (AppRoleName), which the scale rule looks for.
            {
              name: 'AGENTWS_AGENT__NAME'
              value: name
            }
            {
              name: 'AGENTWS_WEBSOCKET__MAX_CONNECTION_AGE'
              value: string(maxConnectionAge)
            }
            {
              name: 'AGENTWS_STORE__URL'
              secretRef: 'store-url'
            }
            {
              name: 'AGENTWS_STORE__AUTH'
              value: storeAuth
            }
            // Agents that share a Redis share nothing else.
            {
              name: 'AGENTWS_STORE__PREFIX'
              value: name
            }
            {
              name: 'AGENTWS_AUTH__API_KEYS'
              secretRef: 'gateway-keys'
            }
            {
              name: 'AGENTWS_AUTH__ALLOWED_ORIGINS'
              value: allowedOrigins
            }
            {
              name: 'APPLICATIONINSIGHTS_CONNECTION_STRING'
              secretRef: 'connection-string'
            }
            // For Redis, and for what the agent itself calls by its managed identity.
            {
              name: 'AZURE_CLIENT_ID'
              value: clientId
            }
            // Replicas do not notice new values of secrets. A new revision does, and this makes one.
            {
              name: 'SECRETS_VERSION'
              value: uniqueString(storeUrl, telemetry, gatewayKeys)
            }
          ]
          // Bounds of the platform: a period of 1 to 240 s, and a threshold of 1 to 10.
          probes: [
            {
              type: 'Startup'
              httpGet: {
                path: '/liveness'
                port: port
              }
              periodSeconds: 6
              timeoutSeconds: 3
              failureThreshold: 10
            }
            {
              type: 'Readiness'
              httpGet: {
                path: '/readiness'
                port: port
              }
              periodSeconds: 5
              timeoutSeconds: 3
              failureThreshold: 2
            }
            {
              type: 'Liveness'
              httpGet: {
                path: '/liveness'
                port: port
              }
              periodSeconds: 10
              timeoutSeconds: 5
              failureThreshold: 3
            }
          ]
        }
      ]
      scale: {
        minReplicas: minReplicas
        maxReplicas: maxReplicas
        rules: empty(metricsWorkspace) ? [processorRule] : [processorRule, socketsRule]
      }
    }
  }
}

@description('Host that the replicas answer at.')
output host string = app.properties.configuration.ingress.fqdn
