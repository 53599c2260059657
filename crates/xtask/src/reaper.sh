# Reads what must not outlive its parent, one item a line; acts when the pipe closes. See reaper.rs.
trap '' INT TERM HUP
groups=' '
cgroups='
'
while IFS= read -r line; do
    verb=${line%% *}
    item=${line#* }
    case $verb in
    group) groups="$groups$item " ;;
    ungroup)
        case $groups in
        *" $item "*) groups="${groups%%" $item "*} ${groups#*" $item "}" ;;
        esac
        ;;
    cgroup) cgroups="$cgroups$item
" ;;
    uncgroup)
        case $cgroups in
        *"
$item
"*) cgroups="${cgroups%%"
$item
"*}
${cgroups#*"
$item
"}" ;;
        esac
        ;;
    folder) set -- "$@" "$item" ;;
    unfolder)
        count=$#
        while [ "$count" -gt 0 ]; do
            [ "$1" = "$item" ] || set -- "$@" "$1"
            shift
            count=$((count - 1))
        done
        ;;
    esac
done
for group in $groups; do kill -9 -"$group"; done
# The killed processes leave their cgroups in their own time.
printf '%s' "$cgroups" | while IFS= read -r cgroup; do
    [ -n "$cgroup" ] || continue
    tries=50
    while [ "$tries" -gt 0 ] && [ -d "$cgroup" ]; do
        find "$cgroup" -depth -type d -exec rmdir {} + && break
        tries=$((tries - 1))
        sleep 0.1
    done
done
# A dying process can still create a file while its folder is being removed: try until it is gone.
tries=50
while [ "$tries" -gt 0 ] && [ "$#" -gt 0 ]; do
    rm -rf -- "$@" && break
    tries=$((tries - 1))
    sleep 0.1
done
exit 0
