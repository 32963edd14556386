"""Maps the top-level folders methods/, datasets/ and splits/ into the gazebench package.

They carry no ``__init__.py`` of their own: a top-level regular package called ``datasets`` would shadow the
Hugging Face one wherever this folder is on ``sys.path``.
"""

from setuptools import find_namespace_packages, setup

MAPPED = {f"gazebench.{folder}": folder for folder in ("methods", "datasets", "splits")}
MAPPED["gazebench.leaderboards.published"] = "leaderboards/published"
packages = find_namespace_packages(include=["gazebench", "gazebench.*"])  # every folder, those of data too
for package, folder in MAPPED.items():
    packages += [package, *(f"{package}.{sub}" for sub in find_namespace_packages(folder))]
DATA = ("pt", "json", "yaml", "tsv", "txt", "md", "jinja", "j2", "tmpl", "css", "js")

setup(
    packages=sorted(set(packages)),
    package_dir=MAPPED,
    package_data={"": ["py.typed", *(f"*.{ending}" for ending in DATA)]},
)
