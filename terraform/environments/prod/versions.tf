terraform {
  required_version = ">= 1.11"

  # Bucket, key and region: terraform init -backend-config=backend.hcl (see backend.example.hcl). The lock is an object
  # beside the state, written on condition that there is none: no table is needed.
  backend "s3" {
    encrypt      = true
    use_lockfile = true
  }

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 6.0"
    }
    helm = {
      source  = "hashicorp/helm"
      version = "~> 3.1"
    }
    kubernetes = {
      source  = "hashicorp/kubernetes"
      version = "~> 3.2"
    }
  }
}
