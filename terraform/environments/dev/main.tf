# For trying things out: few workers, small, deleted objects are kept for a week.

locals {
  tags = { project = "geofield", environment = "dev" }
}

module "geofield" {
  source          = "../../modules/eks"
  region          = var.region
  cluster_name    = var.cluster_name
  bucket          = var.bucket
  image           = var.image
  mode            = "watch"
  schedule        = "0 * * * *"
  workers         = "0:4"
  noncurrent_days = 7
  runner          = { cpu = "500m", memory = "2Gi" }
  worker          = { cpu = "1", memory = "4Gi" }
  worker_nodes    = var.worker_nodes
  monitoring      = var.monitoring
  dagster         = var.dagster
  secret_names    = var.secret_names
  tags            = local.tags
}
