# `make` lists the targets. Needs Python 3.11 or newer and make, nothing else.

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --quiet --disable-pip-version-check --no-input
COMPILE_FILE := $(PY) -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-annotate --no-header
COMPILE := $(COMPILE_FILE) pyproject.toml
RUNTIME_LOCK := --extra up --group build
CHROMIUM := tools/debian.sh 'chromium=chromium|chromium-browser|google-chrome'
GRAPHVIZ := tools/debian.sh graphviz=dot
DEV_LOCK := --all-extras --group dev --constraint requirements.lock

# An environment whose creation was interrupted has no pip yet.
ENSURE_PIP = @$(PY) -m pip --version > /dev/null 2>&1 || $(PY) -m ensurepip --default-pip > /dev/null

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: $(shell sed -n 's/^\([a-z][a-z-]*\):.*/\1/p' $(firstword $(MAKEFILE_LIST)))

help: ## list the targets
	@sed -n 's/^\([a-z][a-z-]*\):[^#]*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{printf "%-26s %s\n", $$1, $$2}'

up: $(VENV)/.runtime ## run everything on http://127.0.0.1:8000, with its own PostgreSQL, mailbox and phones
	@exec env TOCSIN_MAKE_PID=$$PPID $(PY) -m tocsin up

dev: up ## the same as `make up`

seed: $(VENV)/.runtime ## add demo people, phones and notifications to the running `make up`
	@exec $(PY) -m tocsin seed

reset: $(VENV)/.runtime ## delete what `make up` stored: database, mails, pushes, secrets
	@exec $(PY) -m tocsin reset

# The whole suite runs in parallel; a selection by ARGS in one process, which starts at once. Bytecode is cached even if the
# image disables that: tests start dozens of services, and compiling is half of a start.
test: $(VENV)/.dev ## the suite; ARGS="-k badge" picks some
	@exec env -u PYTHONDONTWRITEBYTECODE $(PY) -m pytest --durations=10 $(or $(ARGS),--numprocesses=auto --dist=worksteal -m "not hanging")

test-hanging: $(VENV)/.dev ## services beside a database that hangs: they mostly wait, so many run side by side
	@exec env -u PYTHONDONTWRITEBYTECODE $(PY) -m pytest -m hanging --durations=5 $(or $(ARGS),--numprocesses=4 --dist=worksteal)

test-crowds: $(VENV)/.dev ## one call to 100,000 people, by SQL, by topic and by HTTP; a minute
	@exec env TEST_CROWD=100000 $(PY) -m pytest -m crowd $(ARGS)

lint: $(VENV)/.dev ## style
	@$(PY) -m ruff check
	@$(PY) -m ruff format --check

types: $(VENV)/.dev ## strict types
	@exec $(PY) -m mypy

contract: $(VENV)/.dev ## each module imports only lower layers
	@exec $(VENV)/bin/lint-imports --no-logo

lock-check: $(VENV)/.dev ## the lock files match pyproject.toml
	@mkdir -p build
	@cp requirements.lock build/runtime.lock && cp requirements-dev.lock build/dev.lock
	@$(COMPILE) $(RUNTIME_LOCK) --output-file build/runtime.lock
	@$(COMPILE) $(DEV_LOCK) --output-file build/dev.lock
	@diff requirements.lock build/runtime.lock && diff requirements-dev.lock build/dev.lock \
		|| { echo "The lock files are behind pyproject.toml: make lock, and commit them." >&2; exit 1; }

check-mails: $(VENV)/.dev ## every kind of mail with external tools (SpamAssassin, DKIM, clients); installs what is missing
	@tools/debian.sh spamassassin=perl:Mail::SpamAssassin libmail-dkim-perl=perl:Mail::DKIM::Verifier \
		libemail-mime-perl=perl:Email::MIME openssl=openssl
	@tools/npm.sh checks/mails
	@exec $(PY) -m pytest checks/mails $(ARGS)

test-databases: $(VENV)/.dev ## PostgreSQL 15 to 18, each setting and collation, PgBouncer, a standby; installs what is missing
	@tools/debian.sh pgbouncer=pgbouncer
	@tools/npm.sh checks/databases
	@exec $(PY) -m pytest checks/databases $(ARGS)

test-frameworks: $(VENV)/.dev ## FastAPI, Litestar, Flask, asyncpg and others, each in its environment; NAMES="flask" picks some
	@exec $(PY) checks/run_frameworks.py $(NAMES)

web: ## build the pages' modules from web/ into tocsin/http/web; installs Node, npm and their packages if missing
	@tools/npm.sh web
	@node web/build.mjs tocsin/http/web

test-matrix: $(VENV)/.dev ## a part of the suite on Python 3.11 to 3.14 with PostgreSQL 15 to 18; DOWNLOAD=1 lets uv install Pythons
	@tools/npm.sh checks/databases
	@exec env PYTHONPATH=.:checks/databases:checks/package $(PY) checks/matrix/combinations.py $(if $(DOWNLOAD),--download)

test-matrix-ends: $(VENV)/.dev ## the same with the oldest and the newest of both
	@tools/npm.sh checks/databases
	@exec env PYTHONPATH=.:checks/databases:checks/package $(PY) checks/matrix/combinations.py --ends $(if $(DOWNLOAD),--download)

package-check: $(VENV)/.dev ## the wheel and the sdist, installed and run in new environments without the clone
	@exec $(PY) -m pytest checks/package $(ARGS)

image-check: $(VENV)/.dev ## the image, built and run by Debian's Docker, and docker-compose.yml; as root; minutes; installs what is missing
	@tools/debian.sh docker.io=dockerd debootstrap=debootstrap
	@tools/debian.sh docker-cli=docker # part of docker.io before Debian 13
	@exec $(PY) -m pytest checks/image $(ARGS)

check-pages: $(VENV)/.dev ## the modules' types and size, and the pages in Chromium; installs what is missing
	@$(CHROMIUM)
	@tools/npm.sh web
	@exec $(PY) -m pytest checks/pages $(ARGS)

check-deploy: $(VENV)/.dev build/deploy/.installed ## the files of deploy/: manifests, units, Procfile, nginx, alerts, dashboard; installs what is missing
	@tools/debian.sh systemd=systemd-analyze nginx=nginx prometheus=promtool
	@exec $(PY) -m pytest checks/deploy $(ARGS)

check-languages: $(VENV)/.dev ## the guides for Node, Ruby, Rails, Go and PHP, run against the service; installs what is missing
	@tools/debian.sh ruby=ruby ruby-pg=/usr/share/doc/ruby-pg ruby-jwt=/usr/share/doc/ruby-jwt \
		ruby-activerecord=/usr/share/doc/ruby-activerecord php-cli=php php-pgsql=/usr/share/doc/php-pgsql \
		golang-go=go golang-github-lib-pq-dev=/usr/share/gocode/src/github.com/lib/pq openssl=openssl
	@tools/npm.sh web
	@tools/npm.sh checks/languages
	@exec $(PY) -m pytest checks/languages $(ARGS)

check-frontends: $(VENV)/.dev ## Next.js, Nuxt, Astro, Vue and Svelte with the npm package, in Chromium; installs what is missing
	@$(CHROMIUM)
	@tools/npm.sh web
	@exec $(PY) -m pytest checks/frontends $(ARGS)

api-check: $(VENV)/.dev build/api/.installed ## the API against its own description, with all checks of Schemathesis; two minutes
	@exec $(PY) -m pytest checks/api $(ARGS)

docs: $(VENV)/.dev build/docs/.installed ## the documentation site of this tree, in build/site
	@$(GRAPHVIZ) || true # without it, the diagram of the tables is shown as text
	@exec env PYTHONPATH=.:tools $(PY) -m docs_site.build

docs-versions: $(VENV)/.dev build/docs/.installed ## the same with a folder for each released version too, from its tag
	@$(GRAPHVIZ) || true
	@exec env PYTHONPATH=.:tools $(PY) -m docs_site.build --all

docs-serve: docs ## the same on http://127.0.0.1:8080
	@exec $(PY) -m http.server --bind 127.0.0.1 --directory build/site 8080

check-docs: $(VENV)/.dev build/docs/.installed ## the site: built without a warning, links, offline, in Chromium; installs what is missing
	@$(CHROMIUM)
	@$(GRAPHVIZ)
	@exec $(PY) -m pytest checks/docs $(ARGS)

sbom: $(VENV)/.dev ## write build/sbom.json, a bill of materials (CycloneDX) from the lock files
	@exec $(PY) checks/supply/sbom.py build/sbom.json

release: $(VENV)/.dev ## VERSION=0.2.0: a version's commit and tag, its packages in build/release; pushes nothing; DRY_RUN=1
	@tools/npm.sh web
	@exec $(PY) tools/release.py $(VERSION) $(if $(DRY_RUN),--dry-run)

licences: $(VENV)/.dev ## the licence of each package that ships; fails on one that is not compatible with Apache-2.0
	@exec $(PY) checks/supply/licences.py

audit: $(VENV)/.dev ## known vulnerabilities of the locked packages, offline; AUDIT_DB=path names a copy of OSV's database
	@exec $(PY) checks/supply/audit.py "$(AUDIT_DB)"

faults: $(VENV)/.dev ## real processes under faults from a seed: SEED=7, or SEEDS=1-300 JOBS=2, or SCENARIO=outage LENGTHS=20,60
	@tools/debian.sh faketime=faketime || true # without it, clock faults are left out
	@exec $(PY) -m faults --jobs $(or $(JOBS),1) $(if $(SCENARIO),--scenario $(SCENARIO)) $(if $(LENGTHS),--lengths $(LENGTHS)) \
		$(if $(or $(SEEDS),$(SEED)),--seeds $(or $(SEEDS),$(SEED))) $(ARGS)

faults-short: $(VENV)/.dev ## the fault runner with three fixed seeds
	@exec $(PY) -m faults --short --jobs 2

drill-pooler: $(VENV)/.dev ## PgBouncer in transaction mode for apps and services, killed under load; two minutes; installs what is missing
	@tools/debian.sh pgbouncer=pgbouncer
	@exec $(PY) -m drills.pooler $(ARGS)

drill-failover: $(VENV)/.dev ## failovers by Patroni, etcd and HAProxy under load; ten minutes; installs what is missing; ARGS="--events kill"
	@tools/debian.sh patroni=patroni etcd-server=etcd haproxy=haproxy
	@exec $(PY) -m drills.failover $(ARGS)

drill-restore: $(VENV)/.dev ## a lost database restored from a dump and to a point in time, under load; five minutes; ARGS="--kinds dump"
	@exec $(PY) -m drills.restore $(ARGS)

drill-upgrade: $(VENV)/.dev ## services of version N replaced by N+1 under load, with a schema change of each kind; two minutes
	@exec $(PY) -m drills.upgrade $(ARGS)

mutants: mutants-pure mutants-edits ## small faults in the code, each of which a test has to notice; half an hour

mutants-pure: $(VENV)/.dev build/mutants/.installed ## mutants by mutmut, in the pure modules; ARGS='"*retry*"' picks some
	@exec $(PY) checks/mutants/pure.py $(ARGS)

mutants-edits: $(VENV)/.dev ## mutants from our own list of edits to SQL and flows; ARGS="lease" picks some
	@exec $(PY) checks/mutants/edits.py $(ARGS)

mutants-short: $(VENV)/.dev ## all edits still fit the code, and a sample of them; a minute
	@exec $(PY) checks/mutants/edits.py --short

model-check: ## exhaustive search of the models of wake-up signal and lease with spin; installs what is missing
	@tools/debian.sh spin=spin gcc=cc
	@checks/models/check.sh

check: lint types contract lock-check test test-hanging test-crowds api-check test-databases test-matrix-ends test-frameworks check-mails check-pages check-frontends check-languages check-deploy check-docs model-check faults-short ## all that CI runs

format: $(VENV)/.dev ## rewrite the code in its style
	@$(PY) -m ruff check --fix
	@$(PY) -m ruff format

lock: $(VENV)/.dev ## update the lock files; UPGRADE=--upgrade takes newer versions
	@$(COMPILE) $(RUNTIME_LOCK) $(UPGRADE) --output-file requirements.lock
	@$(COMPILE) $(DEV_LOCK) $(UPGRADE) --output-file requirements-dev.lock

lock-docs: $(VENV)/.dev ## the same for tools/docs_site
	@$(COMPILE_FILE) $(UPGRADE) tools/docs_site/requirements.in --output-file tools/docs_site/requirements.lock

lock-frameworks: $(VENV)/.dev ## the same for checks/frameworks
	@for file in checks/frameworks/*/requirements*.in; do \
		$(COMPILE_FILE) $(UPGRADE) $$file --output-file $${file%.in}.lock || exit 1; done

bench: $(VENV)/.dev ## run all of the following, and write docs/performance.md; at most 33 minutes; ARGS="--cpu 50%" slower
	@$(PY) benchmarks/all_of_them.py $(ARGS); broke=$$?; $(PY) benchmarks/page.py && exit $$broke

performance: $(VENV)/.dev ## write docs/performance.md from docs/performance/ and benchmarks/results/
	@exec $(PY) benchmarks/page.py

bench-list: $(VENV)/.dev build/peers/.installed ## a page of the inbox, first and thousandth, against Django REST framework
	@exec $(PY) benchmarks/listing.py $(ARGS)

bench-groups: $(VENV)/.dev ## a page of the grouped inbox, with groups of 1,000 and 50,000, against a plain page
	@exec $(PY) benchmarks/groups.py $(ARGS)

bench-count-http: $(VENV)/.dev build/peers/.installed ## unread counts a second over HTTP, against Django REST framework
	@tools/debian.sh wrk=wrk
	@exec $(PY) benchmarks/count_http.py $(ARGS)

bench-count-sql: $(VENV)/.dev build/peers/.installed ## unread counts a second in SQL under churn, and the cost for writers
	@exec $(PY) benchmarks/count_sql.py $(ARGS)

bench-stream: $(VENV)/.dev ## from COMMIT to the bytes of a stream, and its memory, against nginx with nchan
	@tools/debian.sh nginx=nginx libnginx-mod-nchan=/usr/lib/nginx/modules/ngx_nchan_module.so
	@exec $(PY) benchmarks/stream.py $(ARGS)

bench-many-serves: $(VENV)/.dev ## 1, 4 and 16 tocsin serve at 1,000 badge changes a second: CPU of PostgreSQL and of an idle one
	@exec $(PY) benchmarks/many_serves.py $(ARGS)

bench-scaling: $(VENV)/.dev ## the costs in docs/scaling.md, and a mixed load that checks them; ten minutes; installs what is missing; ARGS="--checks 3" as the page
	@[ "$$(id -u)" != 0 ] || tools/debian.sh iproute2=ip iptables=iptables # without root all is on loopback
	@exec $(PY) benchmarks/scaling.py $(ARGS)

bench-beside-fan-out: $(VENV)/.dev ## the API and an urgent mail during a fan-out to 100,000, against idle
	@exec $(PY) benchmarks/beside_fan_out.py $(ARGS)

bench-size: $(VENV)/.dev ## buffers of each call, with 10,000 and a million rows; ARGS="--rows 10000 1000000 10000000" more
	@exec $(PY) benchmarks/size.py $(ARGS)

bench-large: $(VENV)/.dev ## pages and CPU of each call, and the clean-up of a day, with 0.1 and a million notifications; ROWS="1000000 10000000"
	@exec $(PY) benchmarks/large.py $(if $(ROWS),--rows $(ROWS)) $(ARGS)

bench-latency: $(VENV)/.dev ## how long after COMMIT a mail and a badge arrive, on this machine
	@exec $(PY) benchmarks/commit_latency.py $(ARGS)

bench-notify: $(VENV)/.dev build/peers/.installed ## notify() calls a second, and commit to stream, against Celery, Procrastinate and Django
	@tools/debian.sh redis-server=redis-server
	@exec $(PY) benchmarks/notify.py $(ARGS)

bench-fan-out: $(VENV)/.dev build/peers/.installed ## recipients a second of one notify() call, against Django's bulk_create
	@exec $(PY) benchmarks/fan_out.py $(ARGS)

bench-apns: $(VENV)/.dev ## pushes a second, against unmodified aioapns
	@exec $(PY) benchmarks/apns.py $(ARGS)

bench-fcm: $(VENV)/.dev ## pushes a second, against unmodified pyfcm
	@exec $(PY) benchmarks/fcm_push.py $(ARGS)

bench-cold-start: $(VENV)/.dev build/peers/.installed ## seconds from a start to the first response, against Django
	@exec $(PY) benchmarks/cold_start.py $(ARGS)

bench-waiting: $(VENV)/.dev ## buffers of the next dispatch and claim, with a thousand and a million due deliveries
	@exec $(PY) benchmarks/waiting.py $(ARGS)

bench-old-snapshot: $(VENV)/.dev ## engine and notify() beside a snapshot that is an hour old, against the same without
	@exec $(PY) benchmarks/old_snapshot.py $(ARGS)

soak: $(VENV)/.dev ## an hour of mixed load: memory, p99 and sizes compared with the first ten minutes
	@exec $(PY) benchmarks/soak.py $(ARGS)

soak-push: $(VENV)/.dev ## 100,000 pushes through the whole engine, one request in twenty failing; minutes
	@exec $(PY) benchmarks/soak_push.py $(ARGS)

bench-dkim: $(VENV)/.dev ## milliseconds per signature, against dkimpy
	@exec $(PY) benchmarks/dkim_signature.py $(ARGS)

bench-engine: $(VENV)/.dev build/peers/.installed ## deliveries a second, against Procrastinate, graphile-worker, pg-boss, Celery
	@tools/debian.sh redis-server=redis-server redis-tools=redis-cli
	@tools/npm.sh benchmarks/peers/node
	@exec $(PY) benchmarks/engine.py $(ARGS)

bench-mails: $(VENV)/.dev build/peers/.installed ## mails a second, rendered and sent, against Django's send_mail
	@tools/debian.sh postfix=smtp-sink postfix=smtp-source
	@exec $(PY) benchmarks/mails.py $(ARGS)

bench-attacks: $(VENV)/.dev ## latency of /healthz beside requests made to block the event loop
	@exec $(PY) benchmarks/attacks.py $(ARGS)

bench-ops: $(VENV)/.dev ## the cost of the operations page, with a ledger of a million deliveries
	@exec $(PY) benchmarks/operations.py $(ARGS)

queue-schema: $(VENV)/.dev ## copy Procrastinate's SQL files into tocsin/sql/procrastinate, after another version was locked
	@exec $(PY) -m tests.support.queue_schema

schema: $(VENV)/.dev ## write docs/schema.md, the tables with their comments, from a migrated database
	@exec $(PY) -m tests.support.schema_diagram

settings-page: $(VENV)/.dev ## write the tables of docs/settings.md, from the declarations in tocsin/settings
	@exec $(PY) -m tests.support.settings_page

states: $(VENV)/.dev ## write the diagram of delivery states in docs/delivery.md, from tocsin/engine/model.py
	@exec $(PY) -m tests.support.delivery_states

reasons: $(VENV)/.dev ## write the tables of reasons in docs/delivery.md, from tocsin/engine/explain/reasons.toml
	@exec $(PY) -m tests.support.reason_tables

golden: $(VENV)/.dev ## write tests/golden, the reviewed mails; review the difference
	@rm -f tests/golden/*
	@exec env GOLDEN=rewrite $(PY) -m pytest --quiet tests/unit/test_mail_templates.py

words: $(VENV)/.dev ## collect the mails' words into the catalogues of tocsin/engine/mail/words
	@exec $(PY) -m tests.support.mail_words

mail-screenshots: $(VENV)/.dev ## each mail in Chromium (installs it if missing): build/mail; ARGS="forum" picks some
	@$(CHROMIUM)
	@exec $(PY) -m tests.support.mail_screenshots $(ARGS)

demo-pictures: $(VENV)/.dev ## take README's picture of the demo in Chromium (installs it if missing), light and dark
	@$(CHROMIUM)
	@exec $(PY) -m tests.support.demo_pictures

clean: ## remove the environment and all caches; the data of `make up` stays
	@rm -rf $(VENV) build dist benchmarks/peers/node/node_modules checks/databases/node_modules checks/languages/node_modules checks/mails/node_modules web/node_modules web/dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp file for each lock, so that a second run installs nothing. The development lock contains the runtime one in the
# same versions (--constraint above), so it counts for both.

$(VENV)/.runtime: requirements.lock pyproject.toml | $(PY)
	@echo "Installing into $(VENV), about 30 s ..."
	$(ENSURE_PIP)
	@$(PIP) install --require-hashes --no-deps -r requirements.lock
	@$(PIP) install --no-build-isolation --no-deps --editable .
	@touch $@

$(VENV)/.dev: requirements-dev.lock requirements.lock pyproject.toml | $(PY)
	@echo "Installing into $(VENV), with the development tools, about 45 s ..."
	$(ENSURE_PIP)
	@$(PIP) install --require-hashes --no-deps -r requirements-dev.lock
	@$(PIP) install --no-build-isolation --no-deps --editable .
	@touch $(VENV)/.runtime $@

# The peers of the benchmarks, in a separate environment.
build/peers/.installed: benchmarks/peers/requirements.lock | $(PY)
	@$(PY) -m venv build/peers
	@build/peers/bin/python -m pip --quiet --disable-pip-version-check install --require-hashes --no-deps -r $<
	@touch $@

# Schemathesis, in an environment of its own.
build/api/.installed: checks/api/requirements.lock | $(PY)
	@$(PY) -m venv build/api
	@build/api/bin/python -m pip --quiet --disable-pip-version-check install --require-hashes --no-deps -r $<
	@touch $@

# The validator of Kubernetes manifests, with their schemas, in a separate environment.
build/deploy/.installed: checks/deploy/requirements.lock | $(PY)
	@$(PY) -m venv build/deploy
	@build/deploy/bin/python -m pip --quiet --disable-pip-version-check install --require-hashes --no-deps -r $<
	@touch $@

# Sphinx with its theme, in a separate environment; it imports nothing of the project.
build/docs/.installed: tools/docs_site/requirements.lock | $(PY)
	@$(PY) -m venv build/docs
	@build/docs/bin/python -m pip --quiet --disable-pip-version-check install --require-hashes --no-deps -r $<
	@touch $@

# mutmut imports the project and its tests, so it also sees the packages of the development environment.
build/mutants/.installed: checks/mutants/requirements.lock $(VENV)/.dev | $(PY)
	@$(PY) -m venv build/mutants
	@build/mutants/bin/python -m pip --quiet --disable-pip-version-check install --require-hashes --no-deps -r $<
	@$(PY) -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
		> "$$(build/mutants/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/project.pth"
	@touch $@

# python3 comes first: the machine's default Python, if it is new enough.
$(PY):
	@found=; bare=; \
	for name in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11; do \
		$$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null || continue; \
		$$name -c 'import ensurepip, venv' 2> /dev/null || { bare=$$name; continue; }; \
		found=$$name; break; \
	done; \
	if [ -n "$$found" ]; then \
		rm -rf $(VENV) && $$found -m venv $(VENV); \
	elif [ -n "$$bare" ]; then \
		echo "$$bare can't make a virtual environment: install its venv package (Debian, Ubuntu: apt install python3-venv)." >&2; exit 1; \
	else \
		echo "Tocsin needs Python 3.11 or newer: install one, or name it with make PYTHON=/path/to/python3." >&2; exit 1; \
	fi
