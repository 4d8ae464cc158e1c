#!/usr/bin/env bash
# Bring what `terraform apply` has prepared into use: provision, and only if that succeeded move the services.
#
#   terraform -chdir=deploy/terraform output -json | deploy/release.sh
#
# Terraform registers the new task definitions and leaves the services on the old ones, at first at rest, for a new daemon
# must not meet a database that is not migrated. The order: the code server, then the daemon (the old one ends before the
# new one begins), then the rest. If one of them does not come up, all go back to what they ran before.
#
# Needs aws, jq and Bash 4.4. Run it again at will.
set -euo pipefail
[ "$((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1]))" -ge 404 ] || { echo "This needs Bash 4.4 or later, and this is $BASH_VERSION. On macOS: brew install bash" >&2; exit 1; }
export AWS_RETRY_MODE=standard AWS_MAX_ATTEMPTS=8

fail() { printf '%s\n' "$*" >&2; exit 1; }

outputs=""
[ -t 0 ] || outputs=$(cat)
jq --exit-status --slurp 'length == 1 and (.[0] | type == "object")' <<<"$outputs" >/dev/null 2>&1 ||
    fail "release.sh takes Terraform's outputs: terraform -chdir=deploy/terraform output -json | deploy/release.sh"
output() { jq --exit-status --raw-output "(.$1 | values) // error(\"Terraform has no output $1: apply it first.\")" <<<"$outputs"; }
[ "$(jq --raw-output '.image_tag.value' <<<"$outputs")" != "" ] ||
    fail "Terraform was applied without an image, so no task could start: apply it with -var image_tag=TAG, the tag of an image that was pushed. Then run this again."

cluster=$(output provision.value.cluster)
provision=$(output provision.value.task_definition)
network=$(output provision.value.network)
wanted=$(output services.value | jq --raw-output 'to_entries[] | "\(.key) \(.value)"')
# A new task may take three minutes until it counts as well or not, and ECS tries three before it gives up.
patience=1800 # seconds

ecs() { aws ecs "$@" --cluster "$cluster"; }
say() { printf '%s\n' "$*"; }
complain() { printf '%s\n' "$*" >&2; }

# What each service runs (a task definition), how many of them, and what it is to run.
declare -A old count new
others=()
while read -r service definition; do
    new[$service]=$definition
    case "$service" in code | daemon) ;; *) others+=("$service") ;; esac
    read -r "old[$service]" "count[$service]" < <(ecs describe-services --services "$service" \
        --query 'services[0].[taskDefinition, desiredCount]' --output text </dev/null)
    if [ "${old[$service]}" = None ]; then
        complain "ECS has no service $service in the cluster $cluster: run terraform apply first."
        exit 1
    fi
done <<<"$wanted"

say "Provisioning: databases, roles, migrations"
task=$(ecs run-task --launch-type FARGATE --task-definition "$provision" \
    --network-configuration "$network" --started-by release --query 'tasks[0].taskArn' --output text)
if [ "$task" = None ]; then
    complain "ECS did not accept the provision task: look at the cluster's capacity, the account's quota and the task's roles."
    exit 1
fi
ecs wait tasks-stopped --tasks "$task"
read -r code reason < <(ecs describe-tasks --tasks "$task" \
    --query 'tasks[0].[containers[0].exitCode, stoppedReason]' --output text)
if [ "$code" != 0 ]; then
    complain "The provision task failed (exit code $code, $reason). No service was touched; its log says why."
    exit 1
fi

# The functions below are called where `set -e` does not hold: each step says itself what its failure means.

# Give a service a task definition and a number of tasks. ECS knows the deployment that this begins by an id.
declare -A deployment moved
move() { # service, task definition, number
    local try
    moved[$1]=yes # whatever the answers: a call that failed may have had its effect
    for try in {1..10}; do # for some minutes, if ECS is not heard
        [ "$try" -eq 1 ] || sleep 15
        [ "$1" != daemon ] || rest daemon || continue
        # Always anew: if nothing else has changed, a secret may have.
        deployment[$1]=$(ecs update-service --service "$1" --force-new-deployment --task-definition "$2" \
            --desired-count "$3" --query "service.deployments[?status=='PRIMARY'] | [0].id" --output text) && return 0
    done
    return 1
}

# End the tasks of a service, and wait until they have ended: a task that is told to stop lives on for up to two minutes.
rest() { # service
    local status tasks
    ecs update-service --service "$1" --desired-count 0 --query service.serviceName --output text >/dev/null || return 1
    for status in RUNNING STOPPED; do # what they are to be: of those that are to be stopped, some still run
        tasks=$(ecs list-tasks --service-name "$1" --desired-status "$status" --query 'taskArns[]' --output text) || return 1
        [ "$tasks" != None ] || tasks=""
        # ECS remembers ended tasks for an hour, and describes a hundred at a time.
        [ -z "$tasks" ] || xargs -n 100 aws ecs wait tasks-stopped --cluster "$cluster" --tasks <<<"$tasks" || return 1
    done
}

# Wait until the deployment of a service is complete. Fails if ECS gave it up, or if another one took its place.
settle() { # service
    local waited=0 silences=0 state
    while [ "$waited" -lt "$patience" ] && [ "$silences" -lt 20 ]; do
        state=$(ecs describe-services --services "$1" --query \
            "services[0].deployments[?id=='${deployment[$1]}'] | [0].rolloutState" --output text) || state=unheard
        case "$state" in
            COMPLETED) return 0 ;;
            unheard) silences=$((silences + 1)) ;;
            IN_PROGRESS) silences=0 ;;
            *) return 1 ;;
        esac
        sleep 10
        waited=$((waited + 10))
    done
    return 1
}

forward() { # service
    say "$1: ${old[$1]##*/} → ${new[$1]##*/}"
    move "$1" "${new[$1]}" 1
}

release() {
    local service
    forward code && settle code || { blame code; return 1; }
    forward daemon && settle daemon || { blame daemon; return 1; }
    for service in "${others[@]}"; do
        forward "$service" || { blame "$service"; return 1; }
    done
    for service in "${others[@]}"; do
        settle "$service" || { blame "$service"; return 1; }
    done
}
blame() { complain "$1 did not come up with ${new[$1]##*/}: its log, and its events in ECS, say why."; }

# All that were touched to what they ran before, in the same order. No daemon begins before the other has ended.
back() {
    local service stuck=""
    trap '' INT TERM HUP
    for service in code daemon "${others[@]}"; do
        [ -n "${moved[$service]:-}" ] || continue
        say "$service: back to ${old[$service]##*/}"
        move "$service" "${old[$service]}" "${count[$service]}" && settle "$service" || stuck+=" $service"
    done
    if [ -n "$stuck" ]; then
        complain "These do not run what they ran before:$stuck. Mend the cause, then run release.sh again."
    else
        complain "All services run what they ran before."
    fi
}

trap 'complain "Interrupted."; back; exit 130' INT TERM HUP
if ! release; then
    back
    exit 1
fi
say "All services run the new revisions."
