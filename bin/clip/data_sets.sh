# shellcheck shell=bash
# The data sets of the searches with CLIP, one study for each. Sourced once flags are parsed.
data_sets=(stl10 pcam cars196 cifar10 food101 pets37 caltech101 cifar100 imagenet)

# launch_for_each_data_set PLACE...: launches $experiment with every data set at these places. The
# quick mode has one data set, and settings for it.
launch_for_each_data_set() {
  # shellcheck disable=SC2154 # of the flags
  if [ "$mode" = quick ]; then
    launch "$experiment"
    return
  fi
  local data place places
  for data in "${data_sets[@]}"; do
    places=()
    for place in "$@"; do places+=("data@$place=$data"); done
    launch "$experiment" "${places[@]}"
  done
}
