#!/bin/sh
# The checks of tocsin.contrib.django against each supported Django, in an environment of its own with psycopg alone.
# Needs FRAMEWORKS_DSN, of a role that may create databases and roles, and SERVICE_PYTHON, the interpreter with tocsin[server],
# of which the environments are made too, but for Django 6.0. Arguments go to pytest.
set -eu
cd "$(dirname "$0")"
root=$(cd ../../.. && pwd)
export SERVICE_PYTHON="${SERVICE_PYTHON:-$root/.venv/bin/python}"

export PYTHONDONTWRITEBYTECODE=1

for lock in requirements-4.2.lock requirements.lock requirements-6.0.lock; do
	base="$SERVICE_PYTHON"
	if [ "$lock" = requirements-6.0.lock ]; then
		base=$("$SERVICE_PYTHON" "$root/checks/matrix/interpreters.py" 3.14 3.13 3.12) || {
			echo "Django 6.0 is left out: it needs Python 3.12 or newer, and there is none on this machine."
			continue
		}
	fi
	env="$root/build/frameworks/django-${lock%.lock}"
	if ! cmp -s "$lock" "$env/installed.lock"; then
		echo "Installing $lock into $env ..."
		"$base" -m venv --clear "$env"
		"$env/bin/python" -m pip --quiet --disable-pip-version-check install --require-hashes --no-deps -r "$lock"
		echo "$root" > "$("$env/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/project.pth"
		cp "$lock" "$env/installed.lock"
	fi
	python="$env/bin/python"
	"$python" -c 'import django; print("Django", django.__version__)'
	"$python" -m pytest --quiet --create-db --ignore test_uuid_users.py --ignore test_django_notifications.py "$@"
	[ $# -eq 0 ] || continue
	"$python" -m pytest --quiet --create-db --ds project.settings_uuid test_uuid_users.py
	! "$python" -c 'import notifications' 2> /dev/null || "$python" -m pytest --quiet test_django_notifications.py
	"$python" manage.py test --no-input
	"$python" manage.py test --no-input --settings project.settings_no_migrations
done
