// Log Analytics for log lines, Application Insights for traces and metrics, and the alerts that
// docs/operations.md tells the meaning of.

@description('What all resources are named after.')
param name string

@description('Where the resources are.')
param location string

@description('Whether to make an Application Insights.')
param createInsights bool

// Each counts log lines of five minutes; more than `threshold` of them is an alert.
var alerts = [
  {
    name: 'slow-clients'
    severity: 3
    threshold: 20
    query: 'ContainerAppConsoleLogs_CL | where Log_s has "agentws.connection" and Log_s has "slow_client"'
  }
  {
    name: 'lost-clients'
    severity: 3
    threshold: 50
    query: 'ContainerAppConsoleLogs_CL | where Log_s has "agentws.connection" and Log_s has "heartbeat_timeout"'
  }
  {
    name: 'store-away'
    severity: 1
    threshold: 0
    query: 'ContainerAppConsoleLogs_CL | where Log_s has "agentws.store" and (Log_s has "WARNING" or Log_s has "ERROR")'
  }
  {
    name: 'errors'
    severity: 2
    threshold: 10
    query: 'ContainerAppConsoleLogs_CL | where Log_s has "ERROR" and Log_s has "agentws."'
  }
  {
    name: 'probes-fail'
    severity: 1
    threshold: 5
    query: 'ContainerAppSystemLogs_CL | where Reason_s == "ProbeFailed"'
  }
]

resource workspace 'Microsoft.OperationalInsights/workspaces@2023-09-01' = {
  name: '${name}-logs'
  location: location
  properties: {
    retentionInDays: 30
    sku: {
      name: 'PerGB2018'
    }
  }
}

resource insights 'Microsoft.Insights/components@2020-02-02' = if (createInsights) {
  name: '${name}-insights'
  location: location
  kind: 'web'
  properties: {
    Application_Type: 'web'
    WorkspaceResourceId: workspace.id
  }
}

resource rules 'Microsoft.Insights/scheduledQueryRules@2023-12-01' = [
  for alert in alerts: {
    name: '${name}-${alert.name}'
    location: location
    properties: {
      displayName: '${name}: ${alert.name}'
      description: 'See docs/operations.md, "What an alert means"'
      severity: alert.severity
      enabled: true
      scopes: [
        workspace.id
      ]
      evaluationFrequency: 'PT5M'
      windowSize: 'PT5M'
      // The tables are there when the first line has been written.
      skipQueryValidation: true
      criteria: {
        allOf: [
          {
            query: alert.query
            timeAggregation: 'Count'
            operator: 'GreaterThan'
            threshold: alert.threshold
            failingPeriods: {
              numberOfEvaluationPeriods: 1
              minFailingPeriodsToAlert: 1
            }
          }
        ]
      }
    }
  }
]

@description('Name of the workspace of log lines.')
output workspaceName string = workspace.name

@description('Name of the Application Insights, empty without one of ours.')
output insightsName string = createInsights ? insights.name : ''
