# A machine that has just booted has the right time already, and the job was written before that.
[ "${MEMCHARGE_PHASE:-0}" != 0 ] || date -s "@$now" >/dev/null
mkdir -p /mnt/files /mnt/out
blockdev --flushbufs /dev/vdb
mount -t ext4 -o noatime,noinit_itable /dev/vdb /mnt/files && cd /mnt/files || exit
rmdir lost+found
if [ "$swap_mb" != 0 ]; then
  fallocate -l "${swap_mb}M" /swap && chmod 600 /swap && /sbin/mkswap /swap >/dev/null && /sbin/swapon /swap || exit
fi
if [ "$reboots" = yes ]; then
  if [ "$MEMCHARGE_PHASE" = 0 ]; then
    # The end of the agent, which a shutdown brings too, would else cut the power at once.
    mkdir -p /etc/systemd/system/memcharge-vm.service.d /var/log/journal
    printf '[Unit]\nFailureAction=none\nSuccessAction=none\n' >/etc/systemd/system/memcharge-vm.service.d/reboot.conf
    printf '[Journal]\nStorage=persistent\n' >/etc/systemd/journald.conf.d/zz-memcharge-vm.conf
    systemctl daemon-reload && systemctl restart systemd-journald || exit
  fi
  journalctl --flush || exit
fi
printf '\036%s start\n' "$nonce"
(echo 0 >/proc/self/oom_score_adj; exec /usr/bin/timeout -k 10 "$limit" bash -c "$command")
rc=$?
if [ $rc != 0 ] && [ -n "$on_failure" ]; then (exec /usr/bin/timeout -k 5 "$on_failure_limit" bash -c "$on_failure"); fi
if [ "$want_out" = yes ]; then
  [ $rc = 0 ] || journalctl -b -o short-monotonic >/mnt/out/journal.log 2>&1
  tar -C /mnt/out -cf - . | dd of=/dev/vdc bs=64k seek=1 conv=notrunc,fsync 2>/dev/null
fi
printf '\036%s end %d\n' "$nonce" $rc
if [ $rc = 0 ] && [ "$last" = no ]; then systemctl poweroff; fi
sleep 1000
