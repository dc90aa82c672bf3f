locals {
  command = concat(
    ["geofield", "watch", "--config", "/etc/geofield/watch.yaml", "--log-format", "json"],
    local.is_watch ? ["--metrics", "0.0.0.0:9464"] : ["--once"],
    !local.is_watch && var.push_gateway != null ? ["--push-gateway", var.push_gateway] : [],
  )
  env = merge(var.env, { GEOFIELD_KUBE_FILE = "/etc/geofield/kube.yaml", HOME = "/tmp", TMPDIR = "/tmp" })
  # by these, Dask clusters belong to the runner's pod and go with it
  pod_env    = { GEOFIELD_POD_NAME = "metadata.name", GEOFIELD_POD_UID = "metadata.uid" }
  pod_labels = merge(local.labels, { "app.kubernetes.io/component" = "runner" })
}

resource "kubernetes_cron_job_v1" "runner" {
  count = local.is_watch ? 0 : 1
  metadata {
    name      = "geofield-runner"
    namespace = kubernetes_namespace_v1.geofield.metadata[0].name
    labels    = local.labels
  }
  spec {
    schedule                      = var.schedule
    timezone                      = var.timezone
    concurrency_policy            = "Forbid" # a second run would do no harm, and no good
    starting_deadline_seconds     = 3600
    successful_jobs_history_limit = 3
    failed_jobs_history_limit     = 7
    suspend                       = var.suspend
    job_template {
      metadata { labels = local.labels }
      spec {
        backoff_limit           = 2
        active_deadline_seconds = var.deadline_s
        template {
          metadata {
            labels = local.pod_labels
            annotations = {
              # a runner that is moved to another node begins again
              "cluster-autoscaler.kubernetes.io/safe-to-evict" = "false"
            }
          }
          spec {
            restart_policy                   = "Never"
            service_account_name             = kubernetes_service_account_v1.runner.metadata[0].name
            termination_grace_period_seconds = 300
            node_selector                    = var.runner.node_selector
            security_context {
              run_as_non_root = true
              run_as_user     = 10001
              run_as_group    = 10001
              fs_group        = 10001
              seccomp_profile { type = "RuntimeDefault" }
            }
            container {
              name    = "runner"
              image   = var.image
              command = local.command
              security_context {
                allow_privilege_escalation = false
                read_only_root_filesystem  = true
                capabilities { drop = ["ALL"] }
              }
              resources {
                requests = { cpu = var.runner.cpu, memory = var.runner.memory }
                limits   = { memory = var.runner.memory }
              }
              dynamic "env" {
                for_each = local.env
                content {
                  name  = env.key
                  value = env.value
                }
              }
              dynamic "env" {
                for_each = local.pod_env
                content {
                  name = env.key
                  value_from {
                    field_ref { field_path = env.value }
                  }
                }
              }
              dynamic "env_from" {
                for_each = var.secret_names
                content {
                  secret_ref { name = env_from.value }
                }
              }
              volume_mount {
                name       = "settings"
                mount_path = "/etc/geofield"
                read_only  = true
              }
              volume_mount {
                name       = "tmp"
                mount_path = "/tmp"
              }
            }
            volume {
              name = "settings"
              config_map { name = kubernetes_config_map_v1.settings.metadata[0].name }
            }
            volume {
              name = "tmp"
              empty_dir { size_limit = "4Gi" }
            }
          }
        }
      }
    }
  }
}

resource "kubernetes_deployment_v1" "runner" {
  count            = local.is_watch ? 1 : 0
  wait_for_rollout = true
  metadata {
    name      = "geofield-runner"
    namespace = kubernetes_namespace_v1.geofield.metadata[0].name
    labels    = local.labels
  }
  spec {
    replicas = var.suspend ? 0 : 1
    strategy { type = "Recreate" } # the old one has left before the new one begins
    selector { match_labels = local.pod_labels }
    template {
      metadata {
        labels = local.pod_labels
        annotations = {
          "cluster-autoscaler.kubernetes.io/safe-to-evict" = "false"
          "geofield/kube-settings"                         = sha256(local.kube) # read at the start only
        }
      }
      spec {
        service_account_name             = kubernetes_service_account_v1.runner.metadata[0].name
        termination_grace_period_seconds = 300
        node_selector                    = var.runner.node_selector
        security_context {
          run_as_non_root = true
          run_as_user     = 10001
          run_as_group    = 10001
          fs_group        = 10001
          seccomp_profile { type = "RuntimeDefault" }
        }
        container {
          name    = "runner"
          image   = var.image
          command = local.command
          port {
            name           = "metrics"
            container_port = 9464
          }
          liveness_probe {
            http_get {
              path = "/metrics"
              port = "metrics"
            }
            period_seconds    = 30
            timeout_seconds   = 10
            failure_threshold = 5
          }
          security_context {
            allow_privilege_escalation = false
            read_only_root_filesystem  = true
            capabilities { drop = ["ALL"] }
          }
          resources {
            requests = { cpu = var.runner.cpu, memory = var.runner.memory }
            limits   = { memory = var.runner.memory }
          }
          dynamic "env" {
            for_each = local.env
            content {
              name  = env.key
              value = env.value
            }
          }
          dynamic "env" {
            for_each = local.pod_env
            content {
              name = env.key
              value_from {
                field_ref { field_path = env.value }
              }
            }
          }
          dynamic "env_from" {
            for_each = var.secret_names
            content {
              secret_ref { name = env_from.value }
            }
          }
          volume_mount {
            name       = "settings"
            mount_path = "/etc/geofield"
            read_only  = true
          }
          volume_mount {
            name       = "tmp"
            mount_path = "/tmp"
          }
        }
        volume {
          name = "settings"
          config_map { name = kubernetes_config_map_v1.settings.metadata[0].name }
        }
        volume {
          name = "tmp"
          empty_dir { size_limit = "4Gi" }
        }
      }
    }
  }
}
