# geofield on an EKS cluster that exists: bucket, role, operator, runner, and what else is asked for.

data "aws_eks_cluster" "this" {
  name = var.cluster_name
}

locals {
  namespace = "geofield"
  # names that module runner gives its accounts; said here, since the role is made before them
  accounts = ["geofield-runner", "geofield-dask"]
  issuer   = one(one(data.aws_eks_cluster.this.identity).oidc).issuer
  # the pool of workers, where this makes one: labels and taints of nodes.tf
  worker = merge(var.worker, { for key, value in {
    node_selector = { "geofield/pool" = "workers" }
    tolerations   = [{ key = "geofield/pool", operator = "Equal", value = "workers", effect = "NoSchedule" }]
  } : key => value if var.worker_nodes != null })
}

module "storage" {
  source          = "../storage"
  bucket          = var.bucket
  prefix          = var.prefix
  kms_key_arn     = var.kms_key_arn
  noncurrent_days = var.noncurrent_days
  tags            = var.tags
}

module "identity" {
  source            = "../identity"
  name              = "${var.cluster_name}-geofield"
  mode              = var.identity_mode
  cluster_name      = var.cluster_name
  cluster_arn       = data.aws_eks_cluster.this.arn
  namespace         = local.namespace
  service_accounts  = local.accounts
  policy_arns       = { store = module.storage.writer_policy_arn }
  oidc_provider_arn = var.oidc_provider_arn
  oidc_issuer       = var.identity_mode == "irsa" ? local.issuer : null
  tags              = var.tags
}

module "operator" {
  source = "../dask-operator"
}

module "runner" {
  source                      = "../runner"
  depends_on                  = [module.operator]
  namespace                   = local.namespace
  image                       = var.image
  mode                        = var.mode
  schedule                    = var.schedule
  timezone                    = var.timezone
  suspend                     = var.suspend
  tenants                     = { main = { store = module.storage.store, workers = var.workers } }
  env                         = { AWS_REGION = var.region }
  secret_names                = var.secret_names
  service_account_annotations = module.identity.service_account_annotations
  runner                      = var.runner
  worker                      = local.worker
  push_gateway                = var.monitoring == null || var.mode == "watch" ? null : module.observability[0].push_gateway
}

module "observability" {
  source              = "../observability"
  count               = var.monitoring == null ? 0 : 1
  watched_namespace   = local.namespace
  grafana_secret_name = var.monitoring.grafana_secret_name
  storage_class       = var.monitoring.storage_class
  push_gateway        = var.mode == "cronjob"
  values              = var.monitoring.values
}

module "dagster" {
  source          = "../dagster"
  count           = var.dagster == null ? 0 : 1
  namespace       = module.runner.namespace
  image           = var.dagster.image
  service_account = local.accounts[0]
  postgres        = var.dagster.postgres
  env             = { AWS_REGION = var.region, GEOFIELD_STORE = module.storage.store, GEOFIELD_CLUSTER = "kube", GEOFIELD_KUBE_IMAGE = var.image }
  secret_names    = var.secret_names
}
