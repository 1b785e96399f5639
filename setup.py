"""What pyproject.toml cannot say: the top-level folder `alembic` is installed as `backend.migrations`.

Under its own name it would land on the library `alembic`.
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["backend", "backend.*"]), "backend.migrations", "backend.migrations.versions"],
    package_dir={"backend.migrations": "alembic"},
    package_data={"backend": ["web/**"], "backend.migrations": ["script.py.mako"]},
)
