# docker buildx bake [--push] [--set '*.platform=linux/amd64']
variable "REPOSITORY" { default = "mlfleet" }
variable "TAG" { default = "0.1.0" }

group "default" { targets = ["cell", "operator"] }

target "cell" {
  context    = "."
  dockerfile = "mlflow-service/Dockerfile"
  platforms  = ["linux/amd64", "linux/arm64"]
  tags       = ["${REPOSITORY}/cell:${TAG}"]
}

target "operator" {
  inherits   = ["cell"]
  dockerfile = "mlflow-service/operator.Dockerfile"
  contexts   = { cell = "target:cell" }
  tags       = ["${REPOSITORY}/operator:${TAG}"]
}

# Only for knative/components/pooler: docker buildx bake pgbouncer
target "pgbouncer" {
  context   = "storage/pgbouncer"
  platforms = ["linux/amd64", "linux/arm64"]
  tags      = ["${REPOSITORY}/pgbouncer:${TAG}"]
}

# Only for loadtest/kubernetes: docker buildx bake load
target "load" {
  inherits   = ["cell"]
  dockerfile = "loadtest/Dockerfile"
  contexts   = { cell = "target:cell" }
  tags       = ["${REPOSITORY}/load:${TAG}"]
}
