// Log Analytics for log lines, Application Insights for traces and metrics, and the alerts that
// docs/operations.md tells the meaning of.

@description('What all resources are named after, the app whose lines are looked at among them.')
param name string

@description('Where the resources are.')
param location string

@description('Id of an existing workspace; empty for a new one.')
param existingWorkspaceId string

@description('Whether to make an Application Insights.')
param createInsights bool

@description('Whether log lines go to that workspace, so that alerts can look at them.')
param hasLines bool

@description('Id of an existing action group that alerts go to; empty for a new one.')
param existingActionGroupId string

@description('Whom a new action group writes to.')
param alertEmail string

// Where log lines are depends on how an environment sends them: the first table is what it writes to a
// workspace itself, the second what its diagnostic settings write. Either may not be there.
var lines = '''
  union isfuzzy=true ContainerAppConsoleLogs_CL, ContainerAppConsoleLogs
  | where coalesce(column_ifexists("ContainerAppName_s", ""), column_ifexists("ContainerAppName", "")) == "APP"
  | extend line = parse_json(coalesce(column_ifexists("Log_s", ""), column_ifexists("Log", "")))
  | extend logger = tostring(line.logger), level = tostring(line.level), message = tostring(line.message)
  | extend error = tostring(line["azure.ai.agentserver.invocations_ws.error.code"])
'''

var events = '''
  union isfuzzy=true ContainerAppSystemLogs_CL, ContainerAppSystemLogs
  | where coalesce(column_ifexists("ContainerAppName_s", ""), column_ifexists("ContainerAppName", "")) == "APP"
  | extend reason = coalesce(column_ifexists("Reason_s", ""), column_ifexists("Reason", ""))
'''

// Each counts what it finds in ten minutes; more than `threshold` of it is an alert.
var alerts = [
  {
    name: 'slow-clients'
    severity: 3
    threshold: 20
    query: '${lines} | where logger == "agentws.connection" and error == "slow_client"'
  }
  {
    name: 'lost-clients'
    severity: 3
    threshold: 50
    query: '${lines} | where logger == "agentws.connection" and error == "heartbeat_timeout"'
  }
  {
    name: 'store-away'
    severity: 1
    threshold: 0
    query: '${lines} | where logger == "agentws.store" and (message startswith "Redis does not answer" or message startswith "The store waits for Redis")'
  }
  {
    // The line has how many invocations were lost with it, which may be none.
    name: 'replica-dead'
    severity: 1
    threshold: 0
    query: '${lines} | where logger == "agentws.store" and isnotempty(line.lost)'
  }
  {
    name: 'errors'
    severity: 2
    threshold: 10
    query: '${lines} | where level == "ERROR" and logger startswith "agentws."'
  }
  {
    name: 'probes-fail'
    severity: 1
    threshold: 5
    query: '${events} | where reason == "ProbeFailed"'
  }
]

resource workspace 'Microsoft.OperationalInsights/workspaces@2025-07-01' = if (empty(existingWorkspaceId)) {
  name: '${name}-logs'
  location: location
  properties: {
    retentionInDays: 30
    sku: {
      name: 'PerGB2018'
    }
  }
}

var workspaceId = empty(existingWorkspaceId) ? workspace.id : existingWorkspaceId

resource insights 'Microsoft.Insights/components@2020-02-02' = if (createInsights) {
  name: '${name}-insights'
  location: location
  kind: 'web'
  properties: {
    Application_Type: 'web'
    WorkspaceResourceId: workspaceId
  }
}

resource people 'Microsoft.Insights/actionGroups@2023-01-01' = if (hasLines && empty(existingActionGroupId)) {
  name: '${name}-alerts'
  location: 'global'
  properties: {
    enabled: true
    groupShortName: take(name, 12)
    emailReceivers: [
      {
        name: 'operators'
        emailAddress: alertEmail
        useCommonAlertSchema: true
      }
    ]
  }
}

resource rules 'Microsoft.Insights/scheduledQueryRules@2023-12-01' = [
  for alert in alerts: if (hasLines) {
    name: '${name}-${alert.name}'
    location: location
    properties: {
      displayName: '${name}: ${alert.name}'
      description: 'See docs/operations.md, "What an alert means"'
      severity: alert.severity
      enabled: true
      autoMitigate: true
      scopes: [
        workspaceId
      ]
      // Lines take some minutes to the workspace; so windows overlap.
      evaluationFrequency: 'PT5M'
      windowSize: 'PT10M'
      // The tables are there when the first line has been written.
      skipQueryValidation: true
      criteria: {
        allOf: [
          {
            query: replace(alert.query, 'APP', name)
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
      actions: {
        actionGroups: [
          empty(existingActionGroupId) ? people.id : existingActionGroupId
        ]
      }
    }
  }
]

@description('Id of the workspace of log lines.')
output workspaceId string = workspaceId

@description('Name of the Application Insights, empty without one of ours.')
output insightsName string = createInsights ? insights.name : ''
