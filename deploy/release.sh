#!/usr/bin/env bash
# Bring what `terraform apply` has prepared into use: provision, and only if that succeeded move the services.
#
#   terraform -chdir=deploy/terraform output -json | deploy/release.sh
#
# Terraform registers the new task definitions and leaves the services on the old ones, at first at rest, for a new daemon
# must not meet a database that is not migrated. Needs aws and jq. Run it again at will.
set -euo pipefail

outputs=$(cat)
output() { jq --exit-status --raw-output "(.$1 | values) // error(\"Terraform has no output $1\")" <<<"$outputs"; }

cluster=$(output provision.value.cluster)
provision=$(output provision.value.task_definition)
network=$(output provision.value.network)
services=$(output services.value | jq --raw-output '.[]')

echo "Provisioning: databases, roles, migrations"
task=$(aws ecs run-task --cluster "$cluster" --launch-type FARGATE --task-definition "$provision" \
    --network-configuration "$network" --started-by release --query 'tasks[0].taskArn' --output text)
if [ "$task" = None ]; then
    echo "ECS did not accept the provision task: look at the cluster's capacity and the task's roles." >&2
    exit 1
fi
aws ecs wait tasks-stopped --cluster "$cluster" --tasks "$task"
read -r code reason < <(aws ecs describe-tasks --cluster "$cluster" --tasks "$task" \
    --query 'tasks[0].[containers[0].exitCode, stoppedReason]' --output text)
if [ "$code" != 0 ]; then
    echo "The provision task failed (exit code $code, $reason). No service was touched; its log says why." >&2
    exit 1
fi

declare -A wanted
for service in $services; do
    now=$(aws ecs describe-services --cluster "$cluster" --services "$service" \
        --query 'services[0].taskDefinition' --output text)
    family=${now##*/} family=${family%:*} # which without a number is its newest revision
    wanted[$service]=$(aws ecs update-service --cluster "$cluster" --service "$service" --force-new-deployment \
        --desired-count 1 --task-definition "$family" --query 'service.taskDefinition' --output text)
    echo "$service: ${now##*/} → ${wanted[$service]##*/}"
done
# shellcheck disable=SC2086  # one word per service
aws ecs wait services-stable --cluster "$cluster" --services $services

# Stable is also a service that ECS has taken back to the old revision.
for service in $services; do
    now=$(aws ecs describe-services --cluster "$cluster" --services "$service" \
        --query 'services[0].taskDefinition' --output text)
    if [ "$now" != "${wanted[$service]}" ]; then
        echo "$service did not come up and runs ${now##*/} again: its log says why." >&2
        exit 1
    fi
done
echo "All services run the new revisions."
