# shellcheck shell=bash
# Manifests: the one place where templates become YAML. Sourced, never run.

# render FILE: replaces ${NAME} by the environment's NAME, once; the result is not looked at again.
render() {
    awk '{
        line = $0; out = ""
        while (match(line, /\$\{[A-Z0-9_]+\}/)) {
            name = substr(line, RSTART + 2, RLENGTH - 3)
            if (!(name in ENVIRON)) { print FILENAME ": no value for " name > "/dev/stderr"; exit 1 }
            out = out substr(line, 1, RSTART - 1) ENVIRON[name]
            line = substr(line, RSTART + RLENGTH)
        }
        print out line
    }' "$1"
}

# manifests PART: the rendered files of PART (crds, rbac, databases, control, pinger, webhook).
manifests() {
    local dir=$HOME_DIR/packaging file
    case $1 in
        crds) set -- "$dir"/crds/*.yaml ;;
        rbac) set -- "$dir"/manifests/10-*.yaml ;;
        databases) set -- "$dir"/manifests/[23]0-*.yaml ;;
        control) set -- "$dir"/manifests/[456]?-*.yaml ;;
        pinger) set -- "$dir"/manifests/70-*.yaml ;;
        webhook) set -- "$dir"/webhook.yaml ;;
    esac
    for file; do
        echo "---"
        # CRDs are generated, and hold regular expressions: nothing in them is a template.
        case $file in */crds/*) cat "$file" ;; *) render "$file" || return 1 ;; esac
    done
}
