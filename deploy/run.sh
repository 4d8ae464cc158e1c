#!/usr/bin/env bash
# Run a command of the platform in a task of the stack, show what it prints, and end with its exit code.
#
#   deploy/run.sh totesys audit
#   deploy/run.sh --size 1024/4096 totesys dead-letters     # processor units / MiB, instead of those of a large run
#   deploy/run.sh --role restore totesys restore-lake …     # as a role that only some may hand over
#
# The task is that of large runs, of the release that the daemon runs: it knows ToteSys, lake, warehouse and Dagster.
# Terraform's outputs are read from standard input, or if nothing comes there, from Terraform. Ctrl-C ends the task.
#
# Needs aws, jq and Bash 4.4.
set -euo pipefail
[ "$((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1]))" -ge 404 ] || { echo "This needs Bash 4.4 or later, and this is $BASH_VERSION. On macOS: brew install bash" >&2; exit 1; }
export AWS_RETRY_MODE=standard AWS_MAX_ATTEMPTS=8

say() { printf '%s\n' "$*" >&2; } # standard output is the command's
fail() { say "$@"; exit 1; }

size="" role=""
while [ $# -gt 0 ]; do
    case "$1" in
        --size) size=${2:-}; shift 2 || fail "--size is processor units / MiB, as Fargate sells them: 1024/4096" ;;
        --role) role=${2:-}; shift 2 || fail "--role is the name of one of Terraform's output command.roles" ;;
        -h | --help) sed -n '2,/^set /s/^# \{0,1\}//p' "$0"; exit ;;
        -*) fail "run.sh has no option $1: run.sh [--size CPU/MEMORY] [--role NAME] COMMAND [ARGUMENT…]" ;;
        *) break ;;
    esac
done
[ $# -gt 0 ] || fail "Which command? For example: deploy/run.sh totesys audit"
[[ -z "$size" || "$size" =~ ^[0-9]+/[0-9]+$ ]] || fail "--size is processor units / MiB, as Fargate sells them: 1024/4096"

outputs=""
[ -t 0 ] || outputs=$(cat 2>/dev/null) || true # nohup leaves a standard input that cannot be read
[ -n "$outputs" ] || outputs=$(terraform -chdir="$(dirname "$0")/terraform" output -json) ||
    fail "Without Terraform, give it what terraform output -json wrote: run.sh COMMAND < outputs.json"
jq --exit-status --slurp 'length == 1 and (.[0] | type == "object")' <<<"$outputs" >/dev/null 2>&1 ||
    fail "Standard input is not what terraform output -json writes. To ask Terraform instead: run.sh COMMAND < /dev/null"
output() {
    jq --exit-status --raw-output --arg name "$1" \
        'getpath($name / ".") | values' <<<"$outputs" || fail "Terraform has no output $1: apply it first."
}
cluster=$(output command.value.cluster)
network=$(output command.value.network)
log_group=$(output command.value.log_group)
container=$(output command.value.container)
role_arn=""
[ -z "$role" ] || role_arn=$(output "command.value.roles.$role")

ecs() { aws ecs "$@" --cluster "$cluster"; }

# The newest revision may be of a release that is still to come, and meet databases that are not migrated for it.
daemon=$(ecs describe-services --services daemon --query 'services[0].taskDefinition' --output text)
[ "$daemon" != None ] || fail "ECS has no service daemon in the cluster $cluster: run terraform apply first."
definition=$(aws ecs describe-task-definition --task-definition "$daemon" --output text --query \
    "taskDefinition.containerDefinitions[0].environment[?name=='TOTESYS_RUN_TASK_DEFINITION'].value | [0]")

# The words of the command go as they are: no shell comes between. Tables are as wide as the terminal, if there is one.
columns=$({ stty size <&2 | cut -d ' ' -f 2; } 2>/dev/null || true)
overrides=$(jq --null-input --compact-output --ascii-output --arg container "$container" --arg size "$size" --arg role "$role_arn" \
    --arg columns "${columns:-120}" '{containerOverrides: [{name: $container, command: $ARGS.positional,
        environment: [{name: "COLUMNS", value: $columns}]}]}
    + if $size == "" then {} else {cpu: ($size / "/")[0], memory: ($size / "/")[1]} end
    + if $role == "" then {} else {taskRoleArn: $role} end' --args -- "$@")
[ ${#overrides} -le 8192 ] ||
    fail "The command is too long: ECS takes 8,192 characters of it and what belongs to it, and these are ${#overrides}."

# With the same token ECS gives the same task again: asking twice starts one. By the tag, operators may end it (operators.tf).
token=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
begin() {
    ecs run-task --launch-type FARGATE --task-definition "$definition" --network-configuration "$network" \
        --overrides "$overrides" --client-token "$token" --started-by run.sh --tags key=totesys/command,value=run.sh \
        --propagate-tags TASK_DEFINITION --output json
}

task="" signal="" ended=""
stop() {
    [ -z "$signal" ] || { say "Left to itself: ${task:-the task}."; exit "$1"; }
    signal=$1
    [ -n "$task" ] || task=$(begin | jq --raw-output '.tasks[0].taskArn // empty') || true
    [ -n "$task" ] || exit "$signal"
    say "Ending $task; once more leaves it to itself."
    ecs stop-task --task "$task" --reason "run.sh was interrupted" --query task.taskArn --output text >/dev/null ||
        say "ECS could not be told; look after $task."
}
trap 'stop 130' INT
trap 'stop 143' TERM
trap 'stop 129' HUP

small="Ask for less with --size 1024/4096, wait until other tasks have ended, or raise the quota \"Fargate On-Demand vCPU resource count\"."
begun=$(begin) || { [ -n "$signal" ] || fail "ECS refused the task: its sentence is above. If it is about a limit or capacity: $small"; }
if [ -z "$task" ]; then
    task=$(jq --raw-output '.tasks[0].taskArn // empty' <<<"$begun")
    [ -n "$task" ] || fail "ECS did not accept the task ($(jq --raw-output '[.failures[]?.reason] | join(", ")' <<<"$begun")). $small"
fi
say "Task ${task##*/}"

# Print what has come to the log since the last time; fails if nothing has. The log begins some time after the task.
next=()
show() {
    local page
    page=$(aws logs get-log-events --log-group-name "$log_group" --log-stream-name "$container/$container/${task##*/}" \
        --start-from-head "${next[@]}" --output json 2>/dev/null) || return 1
    next=(--next-token "$(jq --raw-output .nextForwardToken <<<"$page")")
    jq --exit-status --raw-output '.events[].message' <<<"$page"
}

state="" silences=0 waited=0 empty=0
while [ -z "$ended" ] || [ "$empty" -lt 4 ]; do # the last lines arrive some seconds after the end
    if show; then empty=0; else empty=$((empty + 1)); fi
    if [ -z "$ended" ]; then
        if described=$(ecs describe-tasks --tasks "$task" --query 'tasks[0]' --output json); then
            silences=0
            now=$(jq --raw-output '.lastStatus // "PROVISIONING"' <<<"$described")
            [ "$now" = "$state" ] || say "$now"
            state=$now
            [ "$state" != STOPPED ] || { ended=yes; empty=0; }
        else
            silences=$((silences + 1))
            [ "$silences" -lt 60 ] || fail "ECS is not heard any more; $task goes on."
        fi
    fi
    case "$state" in PROVISIONING | PENDING) waited=$((waited + 3)) ;; *) waited=0 ;; esac
    if [ "$waited" -ge 900 ] && [ -z "$signal" ]; then
        say "The task has not begun for 15 minutes."
        stop 1
    fi
    sleep 3 || true # a signal ends it
done

code=$(jq --raw-output '.containers[0].exitCode // empty' <<<"$described")
reasons=$(jq --raw-output '[.containers[0].reason, .stoppedReason | values] | join("; ")' <<<"$described")
[ "$code" = 0 ] || [ -n "$signal" ] || [ -n "$code" ] || say "The command did not run."
[ "$code" = 0 ] || say "$reasons"
case "$reasons" in
    *CannotPullContainer*) say "The registry has no such image, or is out of reach: push it, then apply and release.sh." ;;
    *ResourceInitialization*) say "A secret is empty or was removed, or the network has no way to it." ;;
    *OutOfMemory*) say "It needs more memory: --size 4096/30720 is the most of four processors." ;;
esac
exit "${signal:-${code:-1}}"
