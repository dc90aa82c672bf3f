# What runs geofield: a namespace, two service accounts, a role, settings, and either a CronJob or a watching Deployment.

locals {
  labels   = { "app.kubernetes.io/name" = "geofield", "app.kubernetes.io/managed-by" = "terraform" }
  is_watch = var.mode == "watch"
  settings = yamlencode({
    tenants = { for name, tenant in var.tenants : name => merge(
      { store = tenant.store, cluster = "kube", workers = tenant.workers, until = tenant.until },
      tenant.endpoint_url == null ? {} : { endpoint_url = tenant.endpoint_url },
      local.is_watch ? { schedule = var.schedule, timezone = var.timezone } : {},
    ) }
  })
  # what orchestrate.kubesettings reads: the Dask clusters that runs make
  kube = yamlencode(merge(
    {
      image           = var.image
      namespace       = kubernetes_namespace_v1.geofield.metadata[0].name
      service_account = kubernetes_service_account_v1.dask.metadata[0].name
      env             = var.env
      secrets         = var.secret_names
      scheduler = merge(
        { cpu = "1", memory = var.scheduler_memory },
        var.scheduler_node_selector == {} ? {} : { node_selector = var.scheduler_node_selector },
      )
      worker = merge(
        { cpu = var.worker.cpu, memory = var.worker.memory, threads = var.worker.threads },
        { node_selector = var.worker.node_selector, tolerations = var.worker.tolerations },
        var.worker.spot == null ? {} : { spot = var.worker.spot },
      )
      idle_timeout_s = var.idle_timeout_s
    },
  ))
}

resource "kubernetes_namespace_v1" "geofield" {
  metadata {
    name = var.namespace
    labels = merge(local.labels, {
      # the API server refuses pods that ask for more than these need
      "pod-security.kubernetes.io/enforce" = "restricted"
      "pod-security.kubernetes.io/warn"    = "restricted"
    })
  }
}

resource "kubernetes_service_account_v1" "runner" {
  metadata {
    name        = "geofield-runner"
    namespace   = kubernetes_namespace_v1.geofield.metadata[0].name
    labels      = local.labels
    annotations = var.service_account_annotations
  }
}

# Scheduler and workers read and write the store, and have no rights in Kubernetes.
resource "kubernetes_service_account_v1" "dask" {
  metadata {
    name        = "geofield-dask"
    namespace   = kubernetes_namespace_v1.geofield.metadata[0].name
    labels      = local.labels
    annotations = var.service_account_annotations
  }
  automount_service_account_token = false
}

resource "kubernetes_role_v1" "runner" {
  metadata {
    name      = "geofield-runner"
    namespace = kubernetes_namespace_v1.geofield.metadata[0].name
    labels    = local.labels
  }
  dynamic "rule" {
    for_each = var.role_rules
    content {
      api_groups = rule.value.api_groups
      resources  = rule.value.resources
      verbs      = rule.value.verbs
    }
  }
}

resource "kubernetes_role_binding_v1" "runner" {
  metadata {
    name      = "geofield-runner"
    namespace = kubernetes_namespace_v1.geofield.metadata[0].name
    labels    = local.labels
  }
  role_ref {
    api_group = "rbac.authorization.k8s.io"
    kind      = "Role"
    name      = kubernetes_role_v1.runner.metadata[0].name
  }
  subject {
    kind      = "ServiceAccount"
    name      = kubernetes_service_account_v1.runner.metadata[0].name
    namespace = kubernetes_namespace_v1.geofield.metadata[0].name
  }
}

# Settings only. Secrets are made outside of Terraform and named in `secret_names`, so that they are in no state.
resource "kubernetes_config_map_v1" "settings" {
  metadata {
    name      = "geofield-settings"
    namespace = kubernetes_namespace_v1.geofield.metadata[0].name
    labels    = local.labels
  }
  data = {
    "watch.yaml" = local.settings
    "kube.yaml"  = local.kube
  }
}
