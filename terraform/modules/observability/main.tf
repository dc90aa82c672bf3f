# Prometheus and Grafana with geofield's rules and board, those of docs/monitoring. What the rules ask for comes from
# `geofield watch` by a PodMonitor, or from a CronJob by a push gateway.

locals {
  rules = yamldecode(file("${path.module}/../../../docs/monitoring/alerts.yaml"))
  board = file("${path.module}/../../../docs/monitoring/grafana.json")
}

resource "helm_release" "prometheus" {
  name             = "monitoring"
  namespace        = var.namespace
  create_namespace = true
  repository       = "https://prometheus-community.github.io/helm-charts"
  chart            = "kube-prometheus-stack"
  version          = var.chart_version
  atomic           = true
  timeout          = 900

  values = concat([yamlencode({
    additionalPrometheusRulesMap = { geofield = local.rules }
    prometheus = {
      prometheusSpec = {
        retention = var.retention
        resources = { requests = { cpu = "200m", memory = "1Gi" }, limits = { memory = "2Gi" } }
        storageSpec = var.storage_class == null ? {} : {
          volumeClaimTemplate = { spec = {
            storageClassName = var.storage_class
            accessModes      = ["ReadWriteOnce"]
            resources        = { requests = { storage = var.storage_size } }
          } }
        }
      }
      additionalPodMonitors = [{
        name                = "geofield"
        namespaceSelector   = { matchNames = [var.watched_namespace] }
        selector            = { matchLabels = { "app.kubernetes.io/name" = "geofield", "app.kubernetes.io/component" = "runner" } }
        podMetricsEndpoints = [{ port = "metrics", interval = "30s" }]
      }]
    }
    grafana = {
      # made outside of Terraform, so that the password is in no state
      admin = { existingSecret = var.grafana_secret_name, userKey = "admin-user", passwordKey = "admin-password" }
      dashboardProviders = { "geofield.yaml" = { apiVersion = 1, providers = [{
        name = "geofield", type = "file", options = { path = "/var/lib/grafana/dashboards/geofield" }
      }] } }
      dashboards = { geofield = { geofield = { json = local.board } } }
    }
    alertmanager = { enabled = true }
  })], var.values)
}

resource "helm_release" "push_gateway" {
  count      = var.push_gateway ? 1 : 0
  name       = "push-gateway"
  namespace  = var.namespace
  depends_on = [helm_release.prometheus]
  repository = "https://prometheus-community.github.io/helm-charts"
  chart      = "prometheus-pushgateway"
  version    = var.push_gateway_chart_version
  atomic     = true
  values = [yamlencode({
    fullnameOverride = "push-gateway"
    serviceMonitor   = { enabled = true, namespace = var.namespace, honorLabels = true, additionalLabels = { release = "monitoring" } }
  })]
}
