# shellcheck shell=bash
# The data sets of the CLIP experiments; to be sourced after the flags are parsed.
data_sets=(stl10 pcam cars196 cifar10 food101 pets37 caltech101 cifar100)

# launch_for_each_data_set PLACE...: launches $experiment once for each data set, and for ImageNet, at
# these places. The quick mode has only one data set, with settings of its own.
launch_for_each_data_set() {
  # shellcheck disable=SC2154 # of the flags
  if [ "$mode" = quick ]; then
    launch "$experiment"
    return
  fi
  local data place places
  for data in "${data_sets[@]}" imagenet; do
    places=()
    for place in "$@"; do places+=("data@$place=$data"); done
    launch "$experiment" "${places[@]}"
  done
}
