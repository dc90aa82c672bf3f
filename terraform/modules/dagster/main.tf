# Dagster in two releases: its core (pages, one daemon) and the code location. A new version of the code location, or
# an error in it, leaves the core as it is. Records are in a Postgres that exists; its password is in a Secret that
# exists, with the key `postgresql-password`.

locals {
  code     = "geofield"
  resource = { requests = { cpu = "100m", memory = "512Mi" }, limits = { memory = "1Gi" } }
  postgresql = {
    enabled            = false
    postgresqlHost     = var.postgres.host
    postgresqlUsername = var.postgres.username
    postgresqlDatabase = var.postgres.database
    service            = { port = var.postgres.port }
  }
  deployments = [{
    name           = local.code
    image          = { repository = var.image.repository, tag = var.image.tag, pullPolicy = "IfNotPresent" }
    codeServerArgs = ["--module-name", "orchestrate.dagster"]
    port           = 3030
    env            = [for name, value in var.env : { name = name, value = value }]
    envSecrets     = [for name in var.secret_names : { name = name }]
    resources      = { requests = { cpu = "250m", memory = "1Gi" }, limits = { memory = "2Gi" } }
    # runs get the same variables, volumes and account as the code location
    includeConfigInLaunchedRuns = { enabled = true }
    podSecurityContext          = { runAsNonRoot = true, runAsUser = 10001, seccompProfile = { type = "RuntimeDefault" } }
    securityContext             = { allowPrivilegeEscalation = false, capabilities = { drop = ["ALL"] } }
  }]
}

resource "helm_release" "code" {
  name       = "dagster-code"
  namespace  = var.namespace
  repository = "https://dagster-io.github.io/helm"
  chart      = "dagster-user-deployments"
  version    = var.chart_version
  atomic     = true
  timeout    = 600
  values = [yamlencode({
    postgresqlSecretName = var.postgres.secret_name
    deployments          = local.deployments
    serviceAccount       = { create = false, name = var.service_account }
  })]
}

resource "helm_release" "core" {
  name       = "dagster"
  namespace  = var.namespace
  repository = "https://dagster-io.github.io/helm"
  chart      = "dagster"
  version    = var.chart_version
  atomic     = true
  timeout    = 600
  values = [yamlencode({
    global = { postgresqlSecretName = var.postgres.secret_name }
    # the Secret exists: the chart makes none, and Terraform's state holds no password
    generatePostgresqlPasswordSecret = false
    postgresql                       = local.postgresql
    dagsterWebserver                 = { replicaCount = 1, resources = local.resource }
    # one daemon: the chart knows no other number, two would start every schedule twice
    dagsterDaemon = {
      resources      = local.resource
      runCoordinator = { enabled = true, type = "QueuedRunCoordinator", config = { queuedRunCoordinator = { maxConcurrentRuns = var.most_runs } } }
    }
    runLauncher = {
      type   = "K8sRunLauncher"
      config = { k8sRunLauncher = { jobNamespace = var.namespace, loadInclusterConfig = true } }
    }
    "dagster-user-deployments" = { enabled = true, enableSubchart = false, deployments = local.deployments }
    serviceAccount             = { create = true, name = "dagster" }
    telemetry                  = { enabled = false }
    rabbitmq                   = { enabled = false }
    redis                      = { enabled = false }
  })]
}
