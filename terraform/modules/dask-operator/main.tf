# The operator that makes Dask clusters. Its version goes with the one that geofield is locked to.

resource "helm_release" "operator" {
  name             = "dask-operator"
  namespace        = var.namespace
  create_namespace = true
  repository       = "https://helm.dask.org"
  chart            = "dask-kubernetes-operator"
  version          = var.chart_version
  atomic           = true # all of it, or what was there before
  timeout          = 300

  values = [yamlencode({
    # rights in one namespace only, where clusters are made in one namespace only
    rbac     = { create = true, cluster = var.watched_namespace == null }
    kopfArgs = var.watched_namespace == null ? ["--all-namespaces"] : ["--namespace=${var.watched_namespace}"]
    resources = {
      requests = { cpu = "100m", memory = "256Mi" }
      limits   = { memory = "512Mi" }
    }
    securityContext = {
      capabilities             = { drop = ["ALL"] }
      runAsNonRoot             = true
      runAsUser                = 1000
      allowPrivilegeEscalation = false
    }
  })]
}
