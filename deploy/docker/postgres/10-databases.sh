#!/bin/bash
# At the database's first start: one database per service, owned by a role of that service's name that
# can connect to no other. The services share the server, never each other's tables.
set -euo pipefail

for service in config metering billing; do
    password="${service^^}_DATABASE_PASSWORD"
    psql --username="$POSTGRES_USER" --dbname=postgres --set=ON_ERROR_STOP=1 \
        --set=service="$service" --set=password="${!password}" <<'SQL'
CREATE ROLE :"service" LOGIN PASSWORD :'password';
CREATE DATABASE :"service" OWNER :"service";
REVOKE ALL ON DATABASE :"service" FROM PUBLIC;
SQL
done
