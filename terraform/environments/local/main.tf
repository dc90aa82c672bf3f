# A cluster on this machine (kind or k3d) with an S3 server in it. The image is brought in by hand:
#   kind load docker-image geofield:0.1.0

module "operator" {
  source = "../../modules/dask-operator"
}

module "runner" {
  source       = "../../modules/runner"
  depends_on   = [module.operator]
  image        = var.image
  mode         = "watch"
  schedule     = "0 * * * *"
  tenants      = { demo = { store = "s3://geofield/demo", workers = "0:3", endpoint_url = local.s3_url } }
  env          = { AWS_REGION = "us-east-1", AWS_ENDPOINT_URL = local.s3_url, AWS_EC2_METADATA_DISABLED = "true" }
  secret_names = ["geofield-s3"]
  runner       = { cpu = "250m", memory = "1Gi" }
  worker       = { cpu = "250m", memory = "2Gi" }
}

module "observability" {
  source              = "../../modules/observability"
  count               = var.monitoring ? 1 : 0
  watched_namespace   = module.runner.namespace
  grafana_secret_name = "grafana-admin"
}
