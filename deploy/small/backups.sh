# Backups of manage.sh: what of a night is in the bucket, and how it comes back. Sourced, not run.
#
# A night is a folder with the dumps of both databases, the roles, the logins, and SHA256SUMS, which is written last: a
# night without it is not whole, and is never restored. The lake is no part of it: it is in the bucket already.
# shellcheck shell=bash
# shellcheck disable=SC2154 # conf and state are those of manage.sh

# What is in the bucket: keys, a line each.
listed() {
    local found
    found=$(aws s3 ls --recursive "$backups/") || [ $? -eq 1 ] || fail "$backups cannot be listed." # 1: it is empty
    awk '{print $4}' <<<"$found"
}

# Of keys on standard input, the nights that hold a file; of whole nights, that file is SHA256SUMS.
nights() {
    awk -F/ -v file="${1:-SHA256SUMS}" 'NF > 1 && (file == "*" || $NF == file) {print $(NF - 1)}' | sort -u
}

remove_night() {
    aws s3 rm --recursive --only-show-errors "$backups/$1/"
}

find_bucket() {
    backups=$(setting BACKUPS_URI)
    backups=${backups%/}
    case $backups in *[[:space:]]*) fail "BACKUPS_URI is to have no blank in it." ;; s3://?*/?*) ;; *) fail "BACKUPS_URI is to name a folder in a bucket: s3://BUCKET/backups." ;; esac
}

backup() {
    alone
    find_bucket
    local night work database keys kept old
    night=$(date -u +%Y-%m-%dT%H%M%SZ)
    mkdir -p "$state"
    work=$(mktemp -d "$state/backup.XXXXXX")
    # shellcheck disable=SC2064 # as they are now
    trap "backup_failed '$night' '$work'" ERR INT TERM
    # What may do what, without passwords: those are set by provisioning.
    compose exec -T postgres pg_dumpall --username postgres --roles-only --no-role-passwords >"$work/roles.sql"
    for database in warehouse dagster; do
        compose exec -T postgres pg_dump --username postgres --format custom "$database" >"$work/$database.dump"
        compose exec -T postgres pg_restore --file /dev/null <"$work/$database.dump" # it can be read to its end
    done
    cp "$conf/logins/operators" "$conf/logins/viewers" "$work"
    (cd "$work" && sha256sum -- * >"$state/SHA256SUMS" && mv "$state/SHA256SUMS" .)
    # The list last: without it a night is not whole.
    aws s3 cp --recursive --only-show-errors --exclude SHA256SUMS "$work" "$backups/$night/"
    aws s3 cp --only-show-errors "$work/SHA256SUMS" "$backups/$night/SHA256SUMS"
    trap - ERR INT TERM
    rm -rf "$work"
    touch "$state/backed-up"
    echo "Backed up to $backups/$night"
    # So many nights are kept, however old: if backups stop, none goes.
    keys=$(listed) kept=$(setting BACKUPS_KEPT)
    kept=$(nights <<<"$keys" | tail -n "${kept:-14}")
    grep -qxF "$night" <<<"$kept" || fail "The new backup is not the newest in $backups. Nothing was removed."
    for old in $(nights '*' <<<"$keys"); do
        grep -qxF "$old" <<<"$kept" || remove_night "$old"
    done
}

backup_failed() {
    trap - ERR INT TERM
    rm -rf "$2"
    remove_night "$1" || true
    tell "ToteSys: the backup failed" "The earlier ones are there. Why: journalctl -u totesys-backup" || true
    exit 1
}

restore() {
    alone
    find_bucket
    local night=${1:-} work database kind whole
    whole=$(listed | nights)
    [ -n "$whole" ] || fail "There is no backup in $backups."
    [ -n "$night" ] || night=$(tail -n 1 <<<"$whole")
    grep -qxF "$night" <<<"$whole" || fail "There is no whole backup $night. Those there are: manage.sh backups"
    prepare
    work=$(mktemp -d "$state/restore.XXXXXX")
    # shellcheck disable=SC2064
    trap "rm -rf '$work'" EXIT
    aws s3 cp --recursive --only-show-errors "$backups/$night/" "$work"
    (cd "$work" && sha256sum --quiet --check SHA256SUMS) || fail "The backup $night is damaged: restore another one."
    trap 'echo "Nothing was replaced. To go on with what was there: manage.sh up" >&2' ERR
    compose up --detach --wait postgres
    compose stop caddy webserver viewer dashboard daemon code-server
    # Roles that are there are kept, and brought to what they were.
    # shellcheck disable=SC2016
    sed -E 's/^CREATE ROLE (.*);$/DO $do$ BEGIN CREATE ROLE \1; EXCEPTION WHEN duplicate_object THEN END $do$;/' \
        "$work/roles.sql" | sql --dbname postgres >/dev/null
    for database in warehouse dagster; do
        sql --dbname postgres --command "DROP DATABASE IF EXISTS ${database}_restored WITH (FORCE)" \
            --command "CREATE DATABASE ${database}_restored TEMPLATE template0"
        compose exec -T postgres pg_restore --username postgres --exit-on-error --dbname "${database}_restored" \
            <"$work/$database.dump"
    done
    swap
    trap - ERR
    for kind in operators viewers; do
        [ -s "$conf/logins/$kind" ] || cp "$work/$kind" "$conf/logins/$kind"
    done
    up
    echo "Restored from $night. The next refresh loads what is newer in the lake; then: manage.sh totesys audit"
}

# Put the restored databases in place of those in use: both, or none.
swap() {
    local database statements=BEGIN\;
    for database in warehouse dagster; do
        sql --dbname postgres --command "DROP DATABASE IF EXISTS ${database}_before WITH (FORCE)"
        if [ -n "$(sql --dbname postgres --command "SELECT 1 FROM pg_database WHERE datname = '$database'")" ]; then
            sql --dbname postgres --command \
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '$database'" >/dev/null
            statements+="ALTER DATABASE $database RENAME TO ${database}_before;"
        fi
        statements+="ALTER DATABASE ${database}_restored RENAME TO $database;"
    done
    sql --dbname postgres <<<"${statements}COMMIT;"
    # Both are replaced from here on, whatever becomes of the old ones.
    for database in warehouse dagster; do
        sql --dbname postgres --command "DROP DATABASE IF EXISTS ${database}_before WITH (FORCE)" ||
            echo "The database ${database}_before is left. The next restore removes it." >&2
    done
}
