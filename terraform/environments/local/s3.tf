# The S3 server of compose.yaml, as a pod. Its keys are made outside of Terraform: deploy/env and the command in
# docs/deploy.md put them into the Secret geofield-s3.

locals {
  s3_url    = "http://s3.${kubernetes_namespace_v1.s3.metadata[0].name}.svc:7070"
  s3_labels = { "app.kubernetes.io/name" = "s3" }
}

resource "kubernetes_namespace_v1" "s3" {
  metadata {
    name = "s3"
  }
}

resource "kubernetes_service_v1" "s3" {
  metadata {
    name      = "s3"
    namespace = kubernetes_namespace_v1.s3.metadata[0].name
  }
  spec {
    selector = local.s3_labels
    port {
      port        = 7070
      target_port = 7070
    }
  }
}

resource "kubernetes_stateful_set_v1" "s3" {
  # the pod waits for its Secret, which is made after the namespace
  wait_for_rollout = false
  metadata {
    name      = "s3"
    namespace = kubernetes_namespace_v1.s3.metadata[0].name
  }
  spec {
    service_name = "s3"
    replicas     = 1
    selector { match_labels = local.s3_labels }
    template {
      metadata { labels = local.s3_labels }
      spec {
        automount_service_account_token = false
        security_context {
          run_as_non_root = true
          run_as_user     = 10001
          run_as_group    = 10001
          fs_group        = 10001
          seccomp_profile { type = "RuntimeDefault" }
        }
        container {
          name    = "s3"
          image   = var.s3_image
          command = ["sh", "-c", "mkdir -p /data/geofield && exec versitygw --port :7070 --health /health posix /data"]
          env {
            name = "ROOT_ACCESS_KEY"
            value_from {
              secret_key_ref {
                name = "geofield-s3"
                key  = "AWS_ACCESS_KEY_ID"
              }
            }
          }
          env {
            name = "ROOT_SECRET_KEY"
            value_from {
              secret_key_ref {
                name = "geofield-s3"
                key  = "AWS_SECRET_ACCESS_KEY"
              }
            }
          }
          port { container_port = 7070 }
          readiness_probe {
            http_get {
              path = "/health"
              port = 7070
            }
          }
          security_context {
            allow_privilege_escalation = false
            read_only_root_filesystem  = true
            capabilities { drop = ["ALL"] }
          }
          resources {
            requests = { cpu = "100m", memory = "128Mi" }
            limits   = { memory = "512Mi" }
          }
          volume_mount {
            name       = "data"
            mount_path = "/data"
          }
        }
      }
    }
    volume_claim_template {
      metadata { name = "data" }
      spec {
        access_modes = ["ReadWriteOnce"]
        resources { requests = { storage = "5Gi" } }
      }
    }
  }
}
