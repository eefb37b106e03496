terraform {
  required_version = ">= 1.5"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.40, < 7.0"
    }
  }
}

# The organisation's management account: the trail can only be made there.
provider "aws" {
  alias  = "management"
  region = var.region
}

# The account that keeps logs: bucket, key and the roles that read.
provider "aws" {
  alias  = "archive"
  region = var.region
  assume_role {
    role_arn = var.archive_admin_role_arn
  }
}
