#!/usr/bin/env bash
# The platform on one machine that others reach: start it, update it, back it up, restore it. As root. docs/small.md.
set -Eeuo pipefail

usage="Usage: manage.sh COMMAND

  up                       start everything, or bring it to what the settings say
  update [TAG]             back up, then move to TAG of the repository, or to the newest; back if that does not come up
  backup                   the databases and the logins, into the bucket
  backups                  list what is in the bucket
  restore [NIGHT]          the newest backup, or one of those that \`backups\` lists
  health                   what is wrong; exit code 1 if anything is
  add-user KIND NAME       a login of KIND operators or viewers, its password from standard input
  remove-user NAME
  logs [SERVICE …]         the last lines, and what follows
  totesys COMMAND …        the command line of the platform
  install                  the timers of backup and health"

root=$(cd "$(dirname "$(readlink -f "$0")")/../.." && pwd)
conf=${TOTESYS_CONF:-/etc/totesys}
state=${TOTESYS_STATE:-/var/lib/totesys-small}
export TOTESYS_CONF=$conf
# Or the answer to what is sent after an empty file, as viewers may be, is misread: github.com/boto/botocore/issues/3755.
export BOTO_EXPERIMENTAL__NO_EMPTY_CONTINUE=true
umask 077

# A value of the settings, as Compose reads it, for it reads the same files: later files and lines win. Empty if there is none.
setting() {
    local file line value=
    for file in "${settings[@]}"; do
        while IFS= read -r line || [ -n "$line" ]; do
            case $line in "$1="*) value=${line#*=} ;; esac
        done <"$file"
    done
    value=${value#"${value%%[![:space:]]*}"}
    case $value in
        \'*) value=${value#\'} value=${value%%\'*} ;;
        \"*) value=${value#\"} value=${value%%\"*} ;;
        *) value=${value%% #*} value=${value%"${value##*[![:space:]]}"} ;; # a file of Windows ends its lines in a blank
    esac
    printf '%s' "$value"
}

find_settings() {
    settings=()
    local name
    for name in machine settings passwords; do
        [ ! -f "$conf/$name.env" ] || settings+=("$conf/$name.env")
    done
}

# shellcheck source=backups.sh
. "$root/deploy/small/backups.sh"

find_settings
# Where the bucket is, and the keys for it where a machine has no role. The containers read the same file.
if [ -f "$conf/aws.env" ]; then
    set -a
    # shellcheck source=/dev/null
    . "$conf/aws.env"
    set +a
fi

compose() {
    local file files=()
    for file in "${settings[@]}"; do files+=(--env-file "$file"); done
    docker compose --project-directory "$root/deploy/docker" "${files[@]}" \
        --file "$root/deploy/docker/compose.yaml" --file "$root/deploy/small/compose.yaml" "$@"
}

# psql as the superuser of the platform's own server; a failed statement fails it.
sql() {
    compose exec -T postgres psql --username postgres --no-psqlrc --quiet --tuples-only --no-align \
        --set ON_ERROR_STOP=1 "$@"
}

fail() {
    echo "$*" >&2
    exit 1
}

# Tell whoever looks after the platform.
tell() {
    local topic mail
    topic=$(setting TOTESYS_ALERT_TOPIC) mail=$(setting ALERT_MAIL)
    echo "$1: $2" >&2
    if [ -n "$topic" ]; then
        aws sns publish --topic-arn "$topic" --subject "$1" --message "$2" >/dev/null
    elif [ -n "$mail" ]; then
        printf 'To: %s\nSubject: %s\n\n%s\n' "$mail" "$1" "$2" | sendmail -t
    fi
}

# One at a time of what changes databases or containers. A command that starts another holds the lock for it.
alone() {
    [ -z "${TOTESYS_ALONE:-}" ] || return 0
    mkdir -p "$state"
    exec 9>"$state/lock"
    flock --wait "${TOTESYS_WAIT:-3600}" 9 || fail "Another manage.sh has been at work for an hour: end it first."
    export TOTESYS_ALONE=1
}

# Passwords between containers: nobody needs to know them. Made once; another machine makes its own.
make_passwords() {
    if [ ! -f "$conf/passwords.env" ]; then
        local name
        for name in POSTGRES DAGSTER WAREHOUSE_OWNER WAREHOUSE_LOADER WAREHOUSE_READER; do
            echo "${name}_PASSWORD=$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')"
        done >"$conf/passwords.env.new"
        mv "$conf/passwords.env.new" "$conf/passwords.env"
        find_settings
    fi
}

# On AWS the settings are a parameter, so that a new machine finds them. What is left empty there is as Terraform set it.
fetch_settings() {
    local parameter
    parameter=$(setting SETTINGS_PARAMETER)
    if [ -n "$parameter" ]; then
        aws ssm get-parameter --name "$parameter" --with-decryption --query Parameter.Value --output text |
            sed '/^[A-Za-z0-9_]*=[[:space:]]*$/d' >"$conf/settings.env.new"
        mv "$conf/settings.env.new" "$conf/settings.env"
        find_settings
    fi
    [ -n "$(setting TOTESYS_URL)" ] || fail "TOTESYS_URL is not set in ${parameter:-$conf/settings.env}."
}

prepare() {
    mkdir -p "$conf/logins" "$state"
    touch "$conf/logins/operators" "$conf/logins/viewers"
    fetch_settings
    make_passwords
    TOTESYS_IMAGE=$(setting TOTESYS_IMAGE)
    export TOTESYS_IMAGE
    if [ -z "$TOTESYS_IMAGE" ]; then
        TOTESYS_IMAGE=totesys-assets:$(git -C "$root" rev-parse --short=12 HEAD)
        docker image inspect "$TOTESYS_IMAGE" >/dev/null 2>&1 ||
            make --silent --directory "$root" image IMAGE="$TOTESYS_IMAGE"
    fi
}

up() {
    alone
    prepare
    [ -s "$conf/logins/operators" ] || fail "Nobody could log in. Make a login first: manage.sh add-user operators NAME"
    compose up --detach --wait --wait-timeout "${TOTESYS_UP_SECONDS:-900}" --remove-orphans
}

# Images that were built for other commits, and what building left behind: some 2 GB each time.
tidy() {
    docker image ls --format '{{.Repository}}:{{.Tag}}' totesys-assets |
        grep -vxF "totesys-assets:$(git -C "$root" rev-parse --short=12 HEAD)" | xargs --no-run-if-empty docker image rm
    docker builder prune --force >/dev/null
}

update() {
    alone
    local before target=${1:-}
    before=$(git -C "$root" rev-parse HEAD)
    git -C "$root" fetch --quiet --tags --force origin
    [ -n "$target" ] || target=$(git -C "$root" -c versionsort.suffix=- tag --list --sort=-version:refname | head -n 1)
    [ -n "$target" ] || fail "The repository has no tag. Make one of each release, or name a commit: manage.sh update COMMIT"
    git -C "$root" rev-parse --quiet --verify "$target^{commit}" >/dev/null || fail "There is no tag $target."
    # What is older than the databases would not know their tables. Who means it names the tag.
    if [ -z "${1:-}" ] && git -C "$root" merge-base --is-ancestor "$target" "$before"; then
        echo "There is nothing newer: $target, the newest tag, is in what runs."
        return
    fi
    backup
    git -C "$root" checkout --quiet --detach "$target"
    if "$0" up && compose restart caddy; then
        echo "It is at $target."
        tidy || true
        return
    fi
    git -C "$root" checkout --quiet --detach "$before"
    if "$0" up && compose restart caddy; then
        tell "ToteSys: the update to $target failed" "It runs as it did before, at $before." || true
    else
        tell "ToteSys: the update to $target failed" "And so did going back to $before. Look: manage.sh logs" || true
    fi
    exit 1
}

# Whether a command that changes containers or databases began within the last hour, and has not ended.
is_at_work() {
    [ -n "$(find "$state/lock" -mmin -60 2>/dev/null)" ] && ! flock --nonblock --shared "$state/lock" true
}

health() {
    local service is host namespace wrong=""
    for service in caddy code-server daemon dashboard postgres viewer webserver; do
        is=$(compose ps --format '{{.Health}}' "$service" 2>/dev/null || true)
        [ "$is" = healthy ] || wrong+="$service is ${is:-not there}. "
    done
    host=$(setting UI_HOST)
    is=$(curl --silent --max-time 20 --output /dev/null --write-out '%{http_code}' "https://$host/" || true)
    [ "$is" = 401 ] || wrong+="https://$host answers ${is:-nothing}, and should ask for a login. "
    is=$(df --output=pcent "$state" | tr -dc 0-9)
    [ "$is" -lt 90 ] || wrong+="The disk is full to $is %. "
    [ -n "$(find "$state/backed-up" -mmin -1800 2>/dev/null)" ] || wrong+="There was no backup for 30 hours. "
    # That it looked at all: an alarm rings when it no longer does.
    namespace=$(setting HEARTBEAT_NAMESPACE)
    [ -z "$namespace" ] ||
        aws cloudwatch put-metric-data --namespace "$namespace" --metric-name Looked --value 1 || true
    if [ -n "$wrong" ] && is_at_work; then
        echo "Another manage.sh is at work. For an hour nobody is told of: $wrong"
        return
    fi
    if [ -n "$wrong" ]; then
        # Once, and once that it is over; again if it could not be sent.
        [ -e "$state/unwell" ] || { tell "ToteSys: not well" "$wrong" && touch "$state/unwell"; }
        fail "$wrong"
    fi
    [ ! -e "$state/unwell" ] || { tell "ToteSys: well again" "It is over." && rm "$state/unwell"; }
    echo "All is well."
}

add_user() {
    local kind=$1 name=$2 password hash
    case $kind in operators | viewers) ;; *) fail "KIND is operators or viewers." ;; esac
    [[ $name =~ ^[A-Za-z0-9._@-]+$ ]] || fail "A name has letters, digits, and . _ @ - only."
    prepare
    [ ! -t 0 ] || echo "Password, at least 12 characters:" >&2
    IFS= read -rs password || true
    [ ${#password} -ge 12 ] || fail "A password has at least 12 characters."
    hash=$(printf '%s\n' "$password" | compose run --rm --no-deps -T caddy caddy hash-password --algorithm bcrypt)
    remove_lines "$name"
    echo "$name $hash" >>"$conf/logins/$kind"
    ask_caddy
}

remove_lines() {
    local kind
    for kind in operators viewers; do
        awk -v name="$1" '$1 != name' "$conf/logins/$kind" >"$conf/logins.new"
        cat "$conf/logins.new" >"$conf/logins/$kind"
        rm "$conf/logins.new"
    done
}

remove_user() {
    local known
    known=$(cut -d ' ' -f 1 "$conf"/logins/* 2>/dev/null | sort | xargs) || true
    [[ -n $1 && " $known " == *" $1 "* ]] || fail "There is no login ${1:-without a name}. Those there are: ${known:-none}."
    remove_lines "$1"
    ask_caddy
}

# Let Caddy read the logins again, if it runs.
ask_caddy() {
    [ -z "$(compose ps --quiet caddy)" ] || compose restart caddy
}

install() {
    local unit
    mkdir -p "$state"
    [ -e "$state/backed-up" ] || touch "$state/backed-up" # from now on its absence counts
    for unit in "$root"/deploy/small/systemd/*; do
        sed "s|@ROOT@|$root|" "$unit" >"${TOTESYS_UNITS:-/etc/systemd/system}/${unit##*/}"
    done
    systemctl daemon-reload
    systemctl enable --now totesys-backup.timer totesys-health.timer
}

main() {
    local command=${1:-}
    [ $# -eq 0 ] || shift
    case $command in
        up) up ;;
        update) update "$@" ;;
        backup) backup ;;
        restore) restore "$@" ;;
        health) health ;;
        install) install ;;
        backups) find_bucket && listed | nights ;;
        add-user) add_user "${1:-}" "${2:-}" ;;
        remove-user) remove_user "${1:-}" ;;
        logs) compose logs --tail 200 --follow "$@" ;;
        totesys) if [ -t 0 ]; then compose exec daemon totesys "$@"; else compose exec -T daemon totesys "$@"; fi ;;
        help | --help | -h) echo "$usage" ;;
        *) fail "$usage" ;;
    esac
}

# On one line, for an update replaces this file.
main "$@"; exit
