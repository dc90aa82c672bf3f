# Nodes for Dask workers only, from none to as many as are needed. They may vanish at any time (spot): a task whose
# worker is gone is done again elsewhere, and what was published stays. Something has to make them when pods wait:
# cluster-autoscaler finds groups of EKS by itself; with Karpenter, leave worker_nodes out.

resource "aws_eks_node_group" "workers" {
  count           = var.worker_nodes == null ? 0 : 1
  cluster_name    = var.cluster_name
  node_group_name = "geofield-workers"
  node_role_arn   = var.worker_nodes.role_arn
  subnet_ids      = var.worker_nodes.subnet_ids
  capacity_type   = "SPOT"
  instance_types  = var.worker_nodes.instance_types # several: more places to get one
  labels          = { "geofield/pool" = "workers" }
  tags            = var.tags

  scaling_config {
    min_size     = 0
    desired_size = 0
    max_size     = var.worker_nodes.most
  }

  taint {
    key    = "geofield/pool"
    value  = "workers"
    effect = "NO_SCHEDULE"
  }

  update_config {
    max_unavailable_percentage = 50
  }

  lifecycle {
    ignore_changes = [scaling_config[0].desired_size] # the autoscaler's
  }
}
