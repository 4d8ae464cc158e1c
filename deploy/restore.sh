#!/usr/bin/env bash
# Bring the platform back: its database, its lake, its secrets, or Terraform's state.
#
#   deploy/restore.sh all 2026-11-27T10:00:00Z          # database and lake, to the same moment
#   deploy/restore.sh database 2026-11-27T10:00:00Z     # or to a snapshot: snapshot:NAME
#   deploy/restore.sh lake 2026-11-27T10:00:00Z
#   deploy/restore.sh secrets                           # those that were deleted and can still be had
#   deploy/restore.sh state 2026-11-27T10:00:00Z        # as it lay in its bucket then
#   deploy/restore.sh all MOMENT --apply -var-file=lean.tfvars    # if the stack is applied so
#
# It says what it would do; with --apply at the end it does it. Each step looks first what is already so: after an
# interruption, run it again. Nothing is destroyed: the old database stays, under another name.
#
# Needs terraform (initialised, with the variables of the stack), aws, jq, Bash 4.4, and the rights to apply the stack.
set -euo pipefail
[ "$((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1]))" -ge 404 ] || { echo "This needs Bash 4.4 or later, and this is $BASH_VERSION. On macOS: brew install bash" >&2; exit 1; }
export AWS_RETRY_MODE=standard AWS_MAX_ATTEMPTS=8 TF_IN_AUTOMATION=1

here=$(dirname "$0")
stack=${TOTESYS_STACK:-$here/terraform} # another folder of the same configuration: a rehearsal
patience=10800                          # seconds for one step of RDS: a large database is restored in hours

say() { printf '%s\n' "$*"; }
fail() { printf '%s\n' "$*" >&2; exit 1; }
usage() { fail "restore.sh all|database|lake|state MOMENT [--apply], or restore.sh secrets [--apply]; then -var… as for terraform; a moment is 2026-11-27T10:00:00Z"; }

what=${1:-} moment="" snapshot="" apply=""
case "$what" in
    -h | --help) sed -n '2,/^set /s/^# \{0,1\}//p' "$0"; exit ;;
    secrets) shift ;;
    all | database | lake | state)
        [ $# -ge 2 ] || usage
        moment=$2
        shift 2
        ;;
    *) usage ;;
esac
[ "${1:-}" != --apply ] || { apply=yes; shift; }
variables=("$@") # as they are given to terraform apply
for word in "$@"; do [[ "$word" == -var* ]] || usage; done
[ "$what" != database ] || [ "${moment#snapshot:}" = "$moment" ] || { snapshot=${moment#snapshot:}; moment=""; }
[[ "$what$snapshot" == secrets* || -n "$snapshot" || "$moment" =~ ^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$ ]] || usage
# Before anything is at rest: a day that there is, and one that has been.
[ -z "$moment" ] || jq --null-input --exit-status --arg moment "$moment" \
    '($moment | fromdateiso8601) as $second | ($second | todateiso8601) == $moment and $second <= now' >/dev/null 2>&1 ||
    fail "$moment is no moment of the past. It is now $(date -u +%Y-%m-%dT%H:%M:%SZ); the Z means UTC."

tf() { terraform -chdir="$stack" "$@"; }

# Terraform's state, by the versions of its object -----------------------------------------------------------------------

restore_state() {
    local bucket key version file
    [ -f "$stack/backend.hcl" ] || fail "There is no backend.hcl in $stack, which says where the state lies: cp backend.hcl.example backend.hcl, and fill it in."
    setting() { sed -n "s/^ *$1 *= *\"\(.*\)\".*/\1/p" "$stack/backend.hcl"; }
    bucket=$(setting bucket) key=$(setting key)
    [ -n "$bucket" ] && [ -n "$key" ] || fail "backend.hcl in $stack names no bucket and key."
    version=$(aws s3api list-object-versions --bucket "$bucket" --prefix "$key" --output json |
        jq --raw-output --arg key "$key" --arg moment "${moment%Z}" \
            '[.Versions[]? | select(.Key == $key and .LastModified[:19] <= $moment)] | max_by(.LastModified) | .VersionId // empty')
    [ -n "$version" ] || fail "The bucket $bucket has no version of $key of $moment or before."
    file=$(mktemp)
    aws s3api get-object --bucket "$bucket" --key "$key" --version-id "$version" "$file" --query LastModified --output text
    say "Version $version: serial $(jq .serial "$file"), $(jq '.resources | length' "$file") resources."
    rm "$file"
    [ -n "$apply" ] || return 0
    aws s3api copy-object --bucket "$bucket" --key "$key" --copy-source "$bucket/$key?versionId=$version" --query VersionId --output text >/dev/null
    say "It is the newest version now. terraform plan says what was made or changed since; import what it would make twice."
}
if [ "$what" = state ]; then
    restore_state
    [ -n "$apply" ] || say "Nothing was changed. To do it, add --apply."
    exit 0
fi

outputs=$(tf output -json)
output() { jq --exit-status --raw-output --arg name "$1" 'getpath($name / ".") | values' <<<"$outputs" || fail "Terraform has no output $1: apply it first."; }
name=$(output cluster.value) # the stack's: its cluster and its database are called so

# Secrets that somebody deleted ------------------------------------------------------------------------------------------

restore_secrets() {
    local secrets secret
    secrets=$(aws secretsmanager list-secrets --include-planned-deletion --output json |
        jq --raw-output --arg prefix "$name/" '.SecretList[] | select((.Name | startswith($prefix)) and .DeletedDate) | .Name')
    for secret in $secrets; do
        say "Secret $secret was deleted, and can be had back."
        [ -z "$apply" ] || aws secretsmanager restore-secret --secret-id "$secret" --query Name --output text >/dev/null
    done
    [ -n "$secrets" ] || say "No secret of $name is deleted."
}

# What runs, to rest: the daemon first --------------------------------------------------------------------------------------

ended() { # tasks
    [ $# -eq 0 ] || printf '%s\n' "$@" | xargs -n 100 aws ecs wait tasks-stopped --cluster "$name" --tasks
}
list_tasks() { # of which kind; into listed
    local found
    found=$(aws ecs list-tasks --cluster "$name" "$@" --query 'taskArns[]' --output text)
    read -r -d '' -a listed <<<"$found" || true # a line for each hundred, and for none nothing at all: `read` fails at the end
}
rest() { # services
    local service status tasks=()
    for service in "$@"; do
        aws ecs update-service --cluster "$name" --service "$service" --desired-count 0 --query service.serviceName --output text >/dev/null
        for status in RUNNING STOPPED; do # what they are to be: of those that are to be stopped, some still run
            list_tasks --service-name "$service" --desired-status "$status"
            tasks+=("${listed[@]}")
        done
    done
    ended "${tasks[@]}"
}
all_to_rest() {
    local services family runs task
    say "Services to rest, the daemon first"
    rest daemon
    read -ra services < <(output services.value | jq --raw-output 'keys - ["daemon"] | join(" ")')
    rest "${services[@]}"
    family=$(output run_task_definition.value)
    list_tasks --family "$family"
    runs=("${listed[@]}")
    for task in "${runs[@]}"; do
        aws ecs stop-task --cluster "$name" --task "$task" --reason restore --query task.taskArn --output text >/dev/null
    done
    list_tasks --family "$family" --desired-status STOPPED # also those that somebody else has just ended
    ended "${runs[@]}" "${listed[@]}"
}

# The database -----------------------------------------------------------------------------------------------------------

instance() { # identifier, what is asked of it: None if there is no such instance
    # As JSON: as text it would answer once for every page of a hundred instances.
    aws rds describe-db-instances --query "DBInstances[?DBInstanceIdentifier=='$1'].$2 | [0]" --output json | jq --raw-output '. // "None"'
}
exists() { # identifier; who is not answered knows neither
    local found
    found=$(instance "$1" DBInstanceIdentifier) || fail "RDS did not answer. Run this again."
    [ "$found" != None ]
}
available() { # identifier
    local waited=0
    until [ "$(instance "$1" DBInstanceStatus)" = available ]; do
        [ "$waited" -lt "$patience" ] || fail "$1 has not become available: its events in RDS say why. Then run this again."
        sleep 20
        waited=$((waited + 20))
    done
}
rename() { # from, to: the old one may be ill, so nothing is asked of how it is
    local waited=0
    say "$1 → $2"
    aws rds modify-db-instance --db-instance-identifier "$1" --new-db-instance-identifier "$2" --apply-immediately \
        --query DBInstance.DBInstanceIdentifier --output text >/dev/null
    until exists "$2" && ! exists "$1"; do
        [ "$waited" -lt "$patience" ] || fail "$1 has not become $2: its events in RDS say why. Then run this again."
        sleep 20
        waited=$((waited + 20))
    done
}

address=aws_db_instance.database
of_state() { # what Terraform knows of the instance, as JSON; empty if it knows none
    tf state pull | jq --compact-output '.resources[]? | select(.type == "aws_db_instance" and .name == "database") | .instances[0].attributes // empty'
}
look_at_database() {
    known=$(of_state)
    if [ -n "$snapshot" ]; then
        label=$(aws rds describe-db-snapshots --db-snapshot-identifier "$snapshot" --query 'DBSnapshots[0].SnapshotCreateTime' --output text)
    else
        label=$moment
    fi
    label=$(tr -cd 0-9 <<<"${label:0:19}")
    new=$name-as-of-$label old=$name-before-$label
    if exists "$old" || exists "$new"; then
        say "Database: a restore to ${moment:-snapshot $snapshot} is under way; what is missing of it follows."
        return
    fi
    [ -n "$known" ] || fail "Terraform's state has no $address: restore the state first (restore.sh state)."
    if [ -n "$snapshot" ]; then
        [ "$(aws rds describe-db-snapshots --db-snapshot-identifier "$snapshot" --query 'DBSnapshots[0].KmsKeyId' --output text)" = \
            "$(jq --raw-output .kms_key_id <<<"$known")" ] ||
            fail "The snapshot $snapshot has another key than the database: copy it with aws rds copy-db-snapshot --kms-key-id, and restore the copy."
    else
        read -r earliest latest < <(aws rds describe-db-instance-automated-backups --dbi-resource-id "$(jq --raw-output .resource_id <<<"$known")" \
            --query 'DBInstanceAutomatedBackups[0].RestoreWindow.[EarliestTime, LatestTime]' --output text)
        [[ "${earliest:0:19}" < "${moment%Z}" && "${moment%Z}" < "${latest:0:19}" ]] ||
            fail "RDS can restore moments from $earliest to $latest."
    fi
    say "Database: ${moment:-snapshot $snapshot} becomes $new, then $name; the one in use becomes $old."
}

# Restored to what Terraform says, not to the defaults of RDS: group of subnets, parameters, security groups, class.
begin_database() {
    ! exists "$old" && ! exists "$new" || return 0
    say "Restoring to $new"
    setting() { jq --raw-output ".$1 // empty" <<<"$known"; }
    local groups from
    readarray -t groups < <(jq --raw-output '.vpc_security_group_ids[]' <<<"$known")
    if [ -n "$snapshot" ]; then
        from=(restore-db-instance-from-db-snapshot --db-snapshot-identifier "$snapshot" --db-instance-identifier "$new")
    elif exists "$name"; then
        from=(restore-db-instance-to-point-in-time --source-db-instance-identifier "$name" --restore-time "$moment" --target-db-instance-identifier "$new")
    else # it was deleted: its backups are kept
        from=(restore-db-instance-to-point-in-time --source-dbi-resource-id "$(setting resource_id)" --restore-time "$moment" --target-db-instance-identifier "$new")
    fi
    [ -n "$snapshot" ] || from+=(--max-allocated-storage "$(setting max_allocated_storage)")
    aws rds "${from[@]}" --db-instance-class "$(setting instance_class)" --db-subnet-group-name "$(setting db_subnet_group_name)" \
        --vpc-security-group-ids "${groups[@]}" --db-parameter-group-name "$(setting parameter_group_name)" \
        --ca-certificate-identifier "$(setting ca_cert_identifier)" --storage-type "$(setting storage_type)" \
        "$([ "$(setting multi_az)" = true ] && echo --multi-az || echo --no-multi-az)" --no-publicly-accessible \
        --copy-tags-to-snapshot --deletion-protection --enable-cloudwatch-logs-exports postgresql upgrade \
        --query DBInstance.DBInstanceIdentifier --output text >/dev/null
}

# The restored one has the master's password of that moment, which nobody may know any more: RDS makes and keeps a new one.
give_it_a_master() { # identifier
    local key secret waited=0
    key=$(jq --raw-output '.master_user_secret_kms_key_id // .master_user_secret[0].kms_key_id // empty' <<<"$known")
    [ -n "$key" ] || key=$(instance "$name" MasterUserSecret.KmsKeyId)
    secret=$(instance "$1" MasterUserSecret.SecretStatus)
    if [ "$secret" = None ]; then
        say "$1: a new password of the master"
        aws rds modify-db-instance --db-instance-identifier "$1" --manage-master-user-password --master-user-secret-kms-key-id "$key" \
            --apply-immediately --query DBInstance.DBInstanceIdentifier --output text >/dev/null
    fi
    until [ "$(instance "$1" MasterUserSecret.SecretStatus)" = active ] && [ "$(instance "$1" DBInstanceStatus)" = available ]; do
        [ "$waited" -lt "$patience" ] || fail "$1 has no password of the master yet: its events in RDS say why. Then run this again."
        sleep 20
        waited=$((waited + 20))
    done
}

finish_database() {
    if exists "$new"; then
        available "$new"
        give_it_a_master "$new"
        if exists "$name"; then
            ! exists "$old" || fail "There are $name, $new and $old. Remove $new, or rename $old, and run this again."
            rename "$name" "$old"
        fi
        rename "$new" "$name"
    fi
    available "$name"
    adopt
}

# Terraform knows an instance by its resource id: it would go on with the old one, whatever that is called by now.
adopt() {
    local variable value id target plan doomed
    for variable in image_tag image_digest; do # as the last apply had them
        value=$(jq --raw-output ".$variable.value // empty" <<<"$outputs")
        [ -z "$value" ] || variables+=("-var=$variable=$value")
    done
    known=$(of_state)
    id=$(instance "$name" DbiResourceId)
    if [ "$(jq --raw-output .resource_id <<<"${known:-null}")" != "$id" ]; then
        say "Terraform: $address is the restored instance"
        [ -z "$known" ] || tf state rm "$address" >/dev/null
        tf import -input=false -no-color "${variables[@]}" "$address" "$name" >/dev/null
    fi
    # One after the other: what the database's secret is called, its own apply may still change.
    for target in "$address" module.provision; do
        plan=$(mktemp)
        tf plan -input=false -no-color -out="$plan" -target="$target" "${variables[@]}" >/dev/null
        # A task definition is made anew, for it names the master's secret. Anything else that would go is a mistake.
        doomed=$(tf show -json "$plan" | jq --raw-output '.resource_changes[]? | select(.change.actions | index("delete"))
            | select(.type != "aws_ecs_task_definition") | .address')
        [ -z "$doomed" ] || fail "Terraform would destroy or replace: $doomed. Nothing was applied; look at terraform plan."
        tf apply -input=false -no-color "$plan" >/dev/null
        rm "$plan"
    done
    outputs=$(tf output -json)
}

# The order --------------------------------------------------------------------------------------------------------------

run() { "$here/run.sh" "$@" <<<"$outputs"; }

restore_secrets
[ "$what" != secrets ] || { [ -n "$apply" ] || say "Nothing was changed. To do it, add --apply."; exit 0; }
case "$what" in all | database) look_at_database ;; esac
if [ -z "$apply" ]; then
    case "$what" in all | lake) run --size 2048/8192 --role restore totesys restore-lake "$moment" ;; esac
    say "Nothing was changed. With --apply all services are at rest until it is done."
    exit 0
fi
trap '[ $? -eq 0 ] || printf "%s\n" "Not complete: services may be at rest. Run it again to go on, or release.sh to start them as things are." >&2' EXIT
all_to_rest
case "$what" in all | database) begin_database ;; esac
case "$what" in all | lake) run --size 2048/8192 --role restore totesys restore-lake "$moment" --apply ;; esac
case "$what" in all | database) finish_database ;; esac
"$here/release.sh" <<<"$outputs"
if [ "$what" = lake ]; then
    run totesys refresh || fail "If the lake was set back behind the warehouse: restore.sh database $moment, or run.sh totesys refresh --adopt-lake."
else
    run totesys refresh
fi
run totesys audit
[ "$what" = lake ] || say "The database as it was before is $old. When nobody needs it any more: aws rds modify-db-instance --db-instance-identifier $old --no-deletion-protection, then delete-db-instance with a final snapshot."
