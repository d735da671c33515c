
# Names of nodes are asked of the cluster that the line is about.
_ringctl_nodes() {
    local about=() i
    for ((i = 1; i < COMP_CWORD; i++)); do
        case "${COMP_WORDS[i]}" in
            --config | --context) about+=("${COMP_WORDS[i]}" "${COMP_WORDS[i + 1]}") ;;
        esac
    done
    "${COMP_WORDS[0]}" "${about[@]}" --timeout 1s -o csv status 2>/dev/null | tail -n +2 | cut -d, -f3
}

# Names of contexts stand in the file that the line names.
_ringctl_contexts() {
    local about=() i
    for ((i = 1; i < COMP_CWORD; i++)); do
        case "${COMP_WORDS[i]}" in
            --config) about+=(--config "${COMP_WORDS[i + 1]}") ;;
        esac
    done
    "${COMP_WORDS[0]}" "${about[@]}" -o csv ctx ls 2>/dev/null | tail -n +2 | cut -d, -f2
}

_ringctl_or_nodes() {
    local cur="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[*]:COMP_CWORD - 2:2}"
    case "$before" in
        *" --node" | *" --of" | "node show" | "node drain" | "checkpoint "*)
            if [[ "$cur" != -* ]]; then
                COMPREPLY=($(compgen -W "$(_ringctl_nodes)" -- "$cur"))
                # Where there is none, there is nothing: a node is no file. A bash before 4 cannot say so.
                compopt +o default +o bashdefault 2>/dev/null
                return 0
            fi
            ;;
        *" --context" | "ctx use")
            if [[ "$cur" != -* ]]; then
                COMPREPLY=($(compgen -W "$(_ringctl_contexts)" -- "$cur"))
                compopt +o default +o bashdefault 2>/dev/null
                return 0
            fi
            ;;
    esac
    _ringctl "$@"
}

complete -F _ringctl_or_nodes -o bashdefault -o default ringctl
