# The stack for a small company, at about half the price: terraform apply -var-file=lean.tfvars. What it gives up is beside it.

architecture      = "ARM64" # the image must be built for it: make image on an ARM64 machine, or with --platform
endpoint_zones    = 1       # nothing runs while that zone is down, and nothing is missing afterwards
database_multi_az = false   # the same
database_class    = "db.t4g.small"
viewer            = false # viewers have the dashboard

database_most_connections = 150 # of about 200 that it takes

# As the containers are limited on one machine. The first load of a large ToteSys takes longer.
sizes = {
  daemon = { cpu = 1024, memory = 4096 }
  run    = { cpu = 2048, memory = 8192 }
}
