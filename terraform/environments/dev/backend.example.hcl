# Copy to backend.hcl. The bucket exists, is versioned, and is not the one of the store.
bucket = "example-terraform-state"
key    = "geofield/dev.tfstate"
region = "eu-central-1"
