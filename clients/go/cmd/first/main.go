// First creates a tenant, a user and a role, and checks what the user may do.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/structpb"

	pb "tenantry/clients/go/gen/tenantry/v1"
	"tenantry/clients/go/tenantry"
)

func main() {
	address := os.Getenv("TENANTRY_ADDR")
	if address == "" {
		address = "127.0.0.1:50051"
	}
	// For a server on another machine use credentials.NewTLS(nil).
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := run(ctx, conn); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, conn *grpc.ClientConn) error {
	tenant := "acme-" + uuid.NewString()[:8]
	email, password := "ada@acme.test", "correct horse battery"
	_, err := pb.NewAuthServiceClient(conn).Register(ctx, &pb.RegisterRequest{
		Email: email, Password: password, OrganizationName: "Acme", OrganizationSlug: tenant,
	})
	if err != nil {
		return err
	}
	session, err := tenantry.SignIn(ctx, conn, tenant, email, password)
	if err != nil {
		return err
	}
	user, err := createUserWithRole(ctx, session)
	if err != nil {
		return err
	}

	permissions := pb.NewPermissionServiceClient(session)
	for _, region := range []string{"eu", "asia"} {
		scope, err := structpb.NewStruct(map[string]any{"region": region})
		if err != nil {
			return err
		}
		response, err := permissions.Check(ctx, &pb.CheckRequest{
			UserId: user, Permission: "invoice:read", Scope: scope,
		})
		if err != nil {
			return err
		}
		decision := "denied"
		if response.GetAllowed() {
			decision = "allowed"
		}
		fmt.Printf("invoice:read in %s: %s (%s)\n", region, decision, response.GetReason())
	}

	_, err = pb.NewUserServiceClient(session).CreateUser(ctx, &pb.CreateUserRequest{Email: "grace"})
	for field, description := range tenantry.Violations(err) {
		fmt.Printf("refused (%s): %s: %s\n", tenantry.Reason(err), field, description)
	}
	return session.SignOut(ctx)
}

// createUserWithRole creates a user who has all invoice permissions in the regions eu and us.
func createUserWithRole(ctx context.Context, session *tenantry.Session) (string, error) {
	user, err := pb.NewUserServiceClient(session).CreateUser(ctx, &pb.CreateUserRequest{Email: "grace@acme.test"})
	if err != nil {
		return "", err
	}
	roles := pb.NewRoleServiceClient(session)
	role, err := roles.CreateRole(ctx, &pb.CreateRoleRequest{
		Name: "billing", Level: pb.RoleLevel_ROLE_LEVEL_MEMBER, Permissions: []string{"invoice:*"},
	})
	if err != nil {
		return "", err
	}
	scope, err := structpb.NewStruct(map[string]any{"region": []any{"eu", "us"}})
	if err != nil {
		return "", err
	}
	_, err = roles.AssignRole(ctx, &pb.AssignRoleRequest{
		UserId: user.GetUser().GetId(), RoleId: role.GetRole().GetId(), Scope: scope,
	})
	return user.GetUser().GetId(), err
}
