# Makes vmlinux, initrd, root.img and manifest in $TMP. Takes SUITE, META (the kernel's package), PACKAGES, MIRROR, SECURITY, AGENT.
set -eu -o pipefail
cd "$TMP"
export TMPDIR=$TMP R=$TMP/root
key=/usr/share/keyrings/debian-archive-keyring.gpg

# mmdebstrap has an apt configuration of its own; the machine's proxy is the one thing it has to share.
eval "$(apt-config shell http_proxy Acquire::http::Proxy https_proxy Acquire::https::Proxy)"
for v in http_proxy https_proxy; do if [ -n "${!v-}" ]; then export "${v?}"; fi; done

cat >sources <<S
deb [signed-by=$key] $MIRROR $SUITE main
deb [signed-by=$key] $MIRROR $SUITE-updates main
deb [signed-by=$key] $SECURITY $SUITE-security main
S
# The kernel is unpacked, not installed: its package would bring initramfs-tools and a boot loader's hooks along.
mmdebstrap --mode=root --variant=minbase --include="${PACKAGES// /,}" --aptopt='Apt::Install-Recommends "false"' \
  --dpkgopt='path-exclude=/usr/share/'{man,doc,info,locale,i18n}'/*' --customize-hook='
    export APT_CONFIG=$MMDEBSTRAP_APT_CONFIG; cd "$TMP"
    k=$(apt-cache depends $META | sed -n "s/^ *Depends: //p" | grep ^linux-image | head -n 1)
    apt-get download -o APT::Sandbox::User=root $k' "$SUITE" "$R" sources || {
    /usr/lib/apt/apt-helper download-file "$MIRROR/dists/$SUITE/InRelease" release || exit 69 # EX_UNAVAILABLE
    exit 1
  }
dpkg-deb -x linux-image-*.deb k
K=$(basename k/boot/vmlinuz-* | sed s/vmlinuz-//)
mkdir -p "$R/lib/modules"
mv "$(find k -path "*lib/modules/$K")" "$R/lib/modules/"
depmod -b "$R" "$K"
{ echo "linux-image $K"; dpkg-query --admindir="$R/var/lib/dpkg" -W; } >manifest

# The kernel unpacked: QEMU starts it through PVH at once, which saves the guest 0.7 s of unpacking itself. The payload's
# place is in the boot header (Documentation/arch/x86/boot.rst: setup_sects, payload_offset, payload_length).
z=k/boot/vmlinuz-$K
num() { od -An -t "u$2" -j "$1" -N "$2" "$z" | tr -d ' '; }
elf() { [ "$(head -c 4 vmlinux | tail -c 3)" = ELF ]; }
tail -c +$(( ($(num 497 1) + 1) * 512 + $(num 584 4) + 1 )) "$z" | head -c $(( $(num 588 4) - 4 )) >payload || true
for u in zstd lz4 xz; do
  $u -dcq <payload >vmlinux 2>/dev/null || true
  if elf; then break; fi
done
elf || cp "$z" vmlinux

# An initrd with the virtio drivers only, and a second init which only tells that the kernel runs.
mkdir -p i/bin i/dev i/new i/m
cp "$R/bin/busybox" i/bin/
for m in virtio_pci virtio_blk virtio_console fuse; do modprobe -d "$R" -S "$K" --show-depends $m; done |
  awk '$1 == "insmod" && !seen[$2]++ { print $2 }' | while read -r m; do
    b=$(basename "$m" .xz)
    if [ "${m%.xz}" = "$m" ]; then cp "$m" "i/m/$b"; else xz -dc "$m" >"i/m/$b"; fi
    echo "/m/$b"
  done >i/order
cat >i/init <<'I'
#!/bin/busybox sh
b=/bin/busybox; $b mount -t devtmpfs d /dev
while read -r m; do $b insmod $m; done </order
$b mount -t ext4 -o noatime,noinit_itable /dev/vda /new
$b umount /dev; exec $b switch_root /new /lib/systemd/systemd
I
cat >i/probe <<'I'
#!/bin/busybox sh
b=/bin/busybox; $b mount -t devtmpfs d /dev
echo memcharge-probe-alive >/dev/console
$b poweroff -f
I
chmod 755 i/init i/probe
(cd i; find . | cpio -o -H newc --quiet) >initrd

# Units of no use in a throw-away VM, each of which costs 0.1 to 1 s under emulation, and the generators.
S=$R/etc/systemd
rm -rf "$S"/system/*.wants
mkdir -p "$S/system-generators" "$S/journald.conf.d"
for u in systemd-{random-seed,remount-fs,journal-flush,update-utmp,update-utmp-runlevel,pcrphase,pcrphase-sysinit}.service \
  systemd-{firstboot,machine-id-commit,sysusers,binfmt,repart,pstore}.service e2scrub_reap.service getty.target \
  systemd-tmpfiles-clean.timer proc-sys-fs-binfmt_misc.automount systemd-ask-password-{console,wall}.path systemd-initctl.socket; do
  ln -s /dev/null "$S/system/$u"
done
for g in "$R"/lib/systemd/system-generators/*; do ln -s /dev/null "$S/system-generators/${g##*/}"; done
printf '[Journal]\nStorage=volatile\nAudit=no\nRateLimitIntervalSec=0\n' >"$S/journald.conf.d/memcharge-vm.conf"
echo 76e3bd9a51a14d6cb1f0fa4a2d9c6b50 >"$R/etc/machine-id"
echo vm >"$R/etc/hostname"
echo 127.0.0.1 localhost vm >"$R/etc/hosts"
echo 'z /dev/fuse 0666 root root -' >"$R/etc/tmpfiles.d/memcharge-vm.conf" # as udev would do

cat >"$S/system/memcharge-vm.target" <<'U'
[Unit]
Requires=multi-user.target
After=multi-user.target
Wants=memcharge-vm.service
U
ln -s memcharge-vm.target "$S/system/default.target"
cat >"$S/system/memcharge-vm.service" <<'U'
[Unit]
After=multi-user.target
FailureAction=poweroff-immediate
SuccessAction=poweroff-immediate
[Service]
ExecStart=/usr/local/lib/memcharge-vm-agent
Environment=HOME=/root USER=root LOGNAME=root LANG=C.UTF-8
OOMScoreAdjust=-1000
OOMPolicy=continue
TasksMax=infinity
U
install -m 755 "$AGENT" "$R/usr/local/lib/memcharge-vm-agent"

truncate -s 4G root.img
mkfs.ext4 -q -F -m 0 -O ^has_journal -E lazy_itable_init=1 -d "$R" root.img
rm -rf root k i payload sources ./*.deb
