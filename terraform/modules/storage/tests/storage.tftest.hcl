mock_provider "aws" {
  mock_resource "aws_s3_bucket" {
    defaults = { arn = "arn:aws:s3:::fields" }
  }
}

variables {
  bucket = "fields"
  prefix = "/north/"
}

run "nothing_is_public_and_connections_are_encrypted" {
  assert {
    condition = alltrue([
      aws_s3_bucket_public_access_block.store.block_public_acls,
      aws_s3_bucket_public_access_block.store.block_public_policy,
      aws_s3_bucket_public_access_block.store.ignore_public_acls,
      aws_s3_bucket_public_access_block.store.restrict_public_buckets,
    ])
    error_message = "Some way to make the bucket public is open."
  }
  assert {
    condition     = jsondecode(aws_s3_bucket_policy.store.policy).Statement[0].Condition.Bool["aws:SecureTransport"] == "false" && jsondecode(aws_s3_bucket_policy.store.policy).Statement[0].Effect == "Deny"
    error_message = "Plain connections are not refused."
  }
  assert {
    condition     = aws_s3_bucket_versioning.store.versioning_configuration[0].status == "Enabled"
    error_message = "What is deleted is gone."
  }
}

run "a_writer_is_confined_to_the_prefix" {
  assert {
    condition     = jsondecode(aws_iam_policy.writer.policy).Statement[1].Resource == ["arn:aws:s3:::fields/north/*"]
    error_message = "Objects outside the prefix can be written."
  }
  assert {
    condition     = jsondecode(aws_iam_policy.writer.policy).Statement[0].Condition.StringLike["s3:prefix"] == ["north", "north/*"]
    error_message = "Objects outside the prefix can be listed."
  }
  assert {
    condition     = length(flatten([for one in jsondecode(aws_iam_policy.writer.policy).Statement : [for action in one.Action : action if strcontains(action, "*")]])) == 0
    error_message = "The policy allows whole families of actions."
  }
  assert {
    condition     = output.store == "s3://fields/north"
    error_message = "The URL of the store is ${output.store}."
  }
}

run "no_current_object_ever_expires" {
  assert {
    condition     = alltrue([for rule in aws_s3_bucket_lifecycle_configuration.store.rule : alltrue([for one in rule.expiration : coalesce(one.days, 0) == 0 && one.date == null])])
    error_message = "A rule expires objects that the store needs."
  }
}

run "a_key_of_ones_own" {
  variables {
    kms_key_arn = "arn:aws:kms:eu-central-1:123456789012:key/k"
  }
  assert {
    condition     = one(one(aws_s3_bucket_server_side_encryption_configuration.store.rule).apply_server_side_encryption_by_default).sse_algorithm == "aws:kms"
    error_message = "The key is not used."
  }
  assert {
    condition     = jsondecode(aws_iam_policy.writer.policy).Statement[2].Resource == ["arn:aws:kms:eu-central-1:123456789012:key/k"]
    error_message = "The writer may not use the key."
  }
}

run "a_bucket_with_dots_is_refused" {
  command = plan
  variables {
    bucket = "fields.example.org"
  }
  expect_failures = [var.bucket]
}
