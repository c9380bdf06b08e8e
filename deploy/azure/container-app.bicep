// The replicas: a Container App, its environment, identity and secrets.

@description('What all resources are named after.')
param name string

@description('Where the resources are.')
param location string

@description('The image of the agent.')
param image string

@description('Host of the registry that the image is in; empty for a public one.')
param registryServer string

@description('Fewest replicas.')
param minReplicas int

@description('Most replicas.')
param maxReplicas int

@description('Connections and requests at once for which one replica is meant.')
param connectionsPerReplica int

@description('Id of an existing environment; empty for a new one.')
param existingEnvironmentId string

@description('Name of the workspace that log lines go to.')
param workspaceName string

@description('Name of an Application Insights in this resource group, or empty.')
param insightsName string

@description('Connection string of an Application Insights elsewhere.')
@secure()
param connectionString string

@description('Name of an Azure Managed Redis in this resource group, or empty.')
param redisName string

@description('URL of a Redis elsewhere.')
@secure()
param storeUrl string

@description('Origins of pages that may open sockets, comma-separated.')
param allowedOrigins string

@description('Key by which the gateway shows itself.')
@secure()
param gatewayKey string

var port = 8088

// Seconds that running invocations have after SIGTERM; the platform waits for longer than that and
// the four seconds after it.
var shutdownGrace = 25
var terminationGrace = 45

resource workspace 'Microsoft.OperationalInsights/workspaces@2023-09-01' existing = {
  name: workspaceName
}

resource insights 'Microsoft.Insights/components@2020-02-02' existing = if (!empty(insightsName)) {
  name: insightsName
}

resource redis 'Microsoft.Cache/redisEnterprise@2025-04-01' existing = if (!empty(redisName)) {
  name: redisName

  resource database 'databases' existing = {
    name: 'default'
  }
}

resource identity 'Microsoft.ManagedIdentity/userAssignedIdentities@2023-01-31' = {
  name: '${name}-identity'
  location: location
}

resource environment 'Microsoft.App/managedEnvironments@2024-03-01' = if (empty(existingEnvironmentId)) {
  name: '${name}-environment'
  location: location
  properties: {
    appLogsConfiguration: {
      destination: 'log-analytics'
      logAnalyticsConfiguration: {
        customerId: workspace.properties.customerId
        sharedKey: workspace.listKeys().primarySharedKey
      }
    }
  }
}

resource app 'Microsoft.App/containerApps@2024-03-01' = {
  name: name
  location: location
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: {
      '${identity.id}': {}
    }
  }
  properties: {
    managedEnvironmentId: empty(existingEnvironmentId) ? environment.id : existingEnvironmentId
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
              identity: identity.id
            }
          ]
      secrets: [
        {
          name: 'store-url'
          value: empty(redisName)
            ? storeUrl
            : 'rediss://:${uriComponent(redis::database!.listKeys().primaryKey)}@${redis!.properties.hostName}:10000'
        }
        {
          name: 'connection-string'
          value: empty(insightsName) ? connectionString : insights!.properties.ConnectionString
        }
        {
          name: 'gateway-key'
          value: gatewayKey
        }
      ]
    }
    template: {
      terminationGracePeriodSeconds: terminationGrace
      containers: [
        {
          name: 'agentws'
          image: image
          resources: {
            cpu: json('1.0')
            memory: '2Gi'
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
            {
              name: 'AGENTWS_STORE__URL'
              secretRef: 'store-url'
            }
            {
              name: 'AGENTWS_AUTH__API_KEYS'
              secretRef: 'gateway-key'
            }
            {
              name: 'AGENTWS_AUTH__ALLOWED_ORIGINS'
              value: allowedOrigins
            }
            {
              name: 'APPLICATIONINSIGHTS_CONNECTION_STRING'
              secretRef: 'connection-string'
            }
            // For what the agent itself calls by its managed identity.
            {
              name: 'AZURE_CLIENT_ID'
              value: identity.properties.clientId
            }
          ]
          probes: [
            {
              type: 'Startup'
              httpGet: {
                path: '/liveness'
                port: port
              }
              periodSeconds: 1
              failureThreshold: 60
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
        rules: [
          {
            name: 'connections'
            http: {
              metadata: {
                concurrentRequests: string(connectionsPerReplica)
              }
            }
          }
          {
            name: 'processor'
            custom: {
              type: 'cpu'
              metadata: {
                type: 'Utilization'
                value: '70'
              }
            }
          }
        ]
      }
    }
  }
}

@description('Host that the replicas answer at.')
output host string = app.properties.configuration.ingress.fqdn

@description('The identity of the replicas.')
output principalId string = identity.properties.principalId
