// Redirects connections to ports 80 and 443 of 127.0.0.2 to the sidecar's port 15001, unless they are the proxy's own (group 1337): what
// istio-init does with iptables, in the network namespace that this runs in, and without the command.
package main

import (
	"encoding/binary"
	"log"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

const (
	proxyGroup  = 1337
	sidecarPort = 15001
)

// What a packet has to be, one after the other; the last one redirects it.
func rule(port uint16) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeySKGID, Register: 1},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(proxyGroup)},
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_TCP}},
		// The destination's address in the IPv4 header, then its port in the TCP header.
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{127, 0, 0, 2}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binary.BigEndian.AppendUint16(nil, port)},
		&expr.Immediate{Register: 1, Data: binary.BigEndian.AppendUint16(nil, sidecarPort)},
		&expr.Redir{RegisterProtoMin: 1, RegisterProtoMax: 1, Flags: unix.NF_NAT_RANGE_PROTO_SPECIFIED},
	}
}

func main() {
	connection, err := nftables.New()
	if err != nil {
		log.Fatal(err)
	}
	table := connection.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "sidecar"})
	chain := connection.AddChain(&nftables.Chain{
		Name: "output", Table: table, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityNATDest,
	})
	for _, port := range []uint16{80, 443} {
		connection.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: rule(port)})
	}
	if err := connection.Flush(); err != nil {
		log.Fatalf("the kernel takes no redirection: %v", err)
	}
}
