# Once a day, up to forty workers, deleted objects are kept for three months.

locals {
  tags = { project = "geofield", environment = "prod" }
}

module "geofield" {
  source          = "../../modules/eks"
  region          = var.region
  cluster_name    = var.cluster_name
  bucket          = var.bucket
  image           = var.image
  mode            = "cronjob"
  schedule        = "30 6 * * *"
  workers         = "0:40"
  noncurrent_days = 90
  runner          = { cpu = "2", memory = "8Gi" }
  worker          = { cpu = "1", memory = "6Gi", spot = "eks" }
  worker_nodes    = var.worker_nodes
  monitoring      = var.monitoring
  dagster         = var.dagster
  secret_names    = var.secret_names
  tags            = local.tags
}
