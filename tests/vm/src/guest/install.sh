date -s "@$now" >/dev/null
mkdir -p /mnt/files
blockdev --flushbufs /dev/vdb
mount -t ext4 -o ro /dev/vdb /mnt/files || exit
printf '\036%s start\n' "$nonce"
DEBIAN_FRONTEND=noninteractive /usr/bin/timeout "$limit" dpkg --force-unsafe-io -i /mnt/files/*.deb
rc=$?
[ $rc != 0 ] || systemctl daemon-reload || rc=$?
umount /mnt/files
sync
printf '\036%s end %d\n' "$nonce" $rc
