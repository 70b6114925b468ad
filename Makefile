# netlab: `make demo` runs the main job, `make test` every test, `make check` the linters, `make bench` the ratios,
# `make test-kernels` the tracer's tests on another kernel, of which `make test` has the short run.
# Each installs by itself what is missing: Debian packages as root (else it prints the command), the rest in .venv.

PYTHON ?= python3
PACKAGES := python3-venv python3-bpfcc bpftool nftables conntrack iproute2 curl libcap2-bin
TEST_PACKAGES := chromium traceroute procps iputils-ping iputils-tracepath mtr-tiny nginx-light libnginx-mod-stream redis-server dnsmasq-base bind9-dnsutils nghttp2-proxy openssh-server openssl postgresql systemd
KERNEL_PACKAGES := qemu-system-x86 busybox-static kmod file udev
BENCH_PACKAGES := libbpf-tools iperf3 nghttp2-client tcptraceroute lft scamper dublin-traceroute
BIN := .venv/bin
AGAIN := $(BIN)/python tests/support/again.py
LINTED := netlab tests bench notebooks docs/conf.py

.PHONY: demo test test-notebooks test-kernels test-kernels-short check docs notebooks bench clean system

demo: .venv/ready system
	$(BIN)/netlab demo

# In three processes, of which each runs whole files and waits a third of its time. As root the notebooks run live here, while
# the emulated kernel, which has one core, runs beside them; tests/test_notebooks.py runs them without privileges, from their
# recordings.
test: .venv/ready system check
	@$(call install,$(TEST_PACKAGES))
	$(AGAIN) -m "not alone" --durations=40 --durations-min=4 -- -n 3 --dist loadfile
	$(AGAIN) -m alone -- $$(grep -rl mark.alone tests)
	@$(MAKE) --no-print-directory -j2 -O test-notebooks test-kernels-short

test-notebooks: .venv/ready system
	$(AGAIN) --nbval --nbval-current-env --nbval-sanitize-with notebooks/sanitize.cfg -- notebooks

# The guest is emulated, so that even importing takes long: the short run gives it only the files that have marked tests.
test-kernels: KERNEL_TESTS = -m privileged tests/tracer
test-kernels-short: KERNEL_TESTS = -m kernels $$($(BIN)/pytest -q --collect-only -m kernels | sed -n 's/::.*//p' | sort -u)
test-kernels test-kernels-short: .venv/ready system
	-@$(call install,$(KERNEL_PACKAGES))
	@tests/second_kernel.sh $(KERNEL_TESTS)

check: .venv/ready
	$(BIN)/ruff check $(LINTED)
	$(BIN)/ruff format --check $(LINTED)
	$(BIN)/mypy
	$(BIN)/pytest -q tests/test_layers.py
	@$(MAKE) --no-print-directory docs

# Strict: a reference that leads nowhere fails.
docs: .venv/ready
	$(BIN)/sphinx-build -q -W --keep-going -n docs build/docs

# After editing a notebook or its half in plain Python: carry it over to the other half, run the notebooks live, keep
# recordings of such a run, store the outputs.
notebooks: .venv/ready system
	$(BIN)/jupytext --quiet --sync notebooks/*_*.py
	$(BIN)/netlab demo
	cp build/demo/demo.netlab notebooks/recordings/first_look.netlab
	$(BIN)/python notebooks/recordings/post_mortem.py
	for book in notebooks/*.ipynb; do \
		$(BIN)/jupyter nbconvert --to notebook --execute --inplace --ExecutePreprocessor.record_timing=False $$book || exit; \
		find notebooks -maxdepth 1 \( -name '*.netlab' -o -name '*.parquet' \) -exec mv {} notebooks/recordings/ \; ; \
	done

bench: .venv/ready system
	@$(call install,$(BENCH_PACKAGES))
	$(BIN)/python -m bench

clean:
	rm -rf build dist .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

.venv/ready: pyproject.toml
	@$(call install,python3-venv)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/pip install --quiet --editable ".[all]" --group dev
	touch $@

system:
	@$(call install,$(PACKAGES))

# Installs what dpkg does not have (some distributions have a tool in a package of another name). Other distributions: the names differ, `netlab doctor` tells what is missing.
define install
command -v dpkg-query >/dev/null || { echo "No dpkg here: install the like of: $(1)"; exit 0; }; \
missing=""; \
for package in $(1); do \
	dpkg-query -W -f '$${db:Status-Status}' $$package 2>/dev/null | grep -qx installed && continue; \
	command -v $$package >/dev/null || missing="$$missing $$package"; \
done; \
test -z "$$missing" && exit 0; \
if [ "$$(id -u)" = 0 ]; then \
	apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; \
else \
	echo "Some of netlab will not work here until you run: sudo apt-get install$$missing"; \
fi
endef
